// OpenVINO as an engine: the network on CPUs.
#include <algorithm>
#include <cstdlib>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "failure.hpp"
#include "model_file.hpp"
#include "openvino_api.hpp"
#include "session.hpp"

namespace i2sb::openvino {
namespace {

constexpr const char* DEVICE = "CPU";
constexpr size_t COMPILED_KEPT = 4;  // sizes that stay compiled

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

struct Size {
  int batch, channels, height, width;
  bool operator==(const Size&) const = default;
};

// The network compiled for one size, with static shapes: how it is compiled is a function of the size alone, so no
// picture depends on what was restored before.
struct Network {
  Size size;
  Owned<Compiled> compiled;
  Owned<Request> request;
  ElementType x_type, t_type, out_type;
};

class Engine {
 public:
  Engine(const i2sb_model& model, const i2sb_openvino_options& options)
      : api_(library(options)),
        model_(model),
        threads_(std::to_string(thread_count(options.threads))),
        cache_(options.cache_dir ? options.cache_dir : ""),
        core_(nullptr, api_.core_free) {
    if (options.threads < 0) fail(I2SB_ERROR_ARGUMENT, "threads must not be negative");
    Core* core = nullptr;
    api_.check(api_.core_create(&core), "to start");
    core_.reset(core);
    precision_ = choose_precision(options.precision ? options.precision : "auto");
  }

  void predict(const Size& size, int out_channels, const float* x, const float* t, float* out) {
    Network& network = network_for(size);
    int64_t x_dims[] = {size.batch, size.channels, size.height, size.width}, t_dims[] = {size.batch};
    int64_t out_dims[] = {size.batch, out_channels, size.height, size.width};
    const auto tensor = [&](ElementType type, Shape shape, const float* data) {
      Tensor* made = nullptr;
      // The API has no pointer to const; inputs are only read.
      api_.check(api_.tensor_create_from_host_ptr(type, shape, const_cast<float*>(data), &made), "to wrap a tensor");
      return Owned<Tensor>(made, api_.tensor_free);
    };
    const Owned<Tensor> x_tensor = tensor(network.x_type, {4, x_dims}, x),
                        t_tensor = tensor(network.t_type, {1, t_dims}, t),
                        out_tensor = tensor(network.out_type, {4, out_dims}, out);
    Request* request = network.request.get();
    api_.check(api_.infer_request_set_tensor(request, "x", x_tensor.get()), "to take x");
    api_.check(api_.infer_request_set_tensor(request, "t", t_tensor.get()), "to take t");
    api_.check(api_.infer_request_set_tensor(request, "out", out_tensor.get()), "to take out");
    api_.check(api_.infer_request_infer(request), "to run the network");
  }

  const std::string& precision() const { return precision_; }
  const std::string& release() const { return api_.release; }

 private:
  static std::string library(const i2sb_openvino_options& options) {
    if (options.library && *options.library) return options.library;
    const char* named = std::getenv("I2SB_RT_OPENVINO");
    return named ? named : "";
  }

  std::string choose_precision(const std::string& asked) const {
    char* value = nullptr;
    api_.check(api_.core_get_property(core_.get(), DEVICE, "OPTIMIZATION_CAPABILITIES", &value),
               "to tell what the CPU can do");
    const bool bf16 = std::string(value).find("BF16") != std::string::npos;
    api_.free(value);
    if (asked == "auto") return bf16 ? "bf16" : "fp32";
    if (asked == "fp32" || (asked == "bf16" && bf16)) return asked;
    if (asked == "bf16")
      fail(I2SB_ERROR_ENGINE, "this CPU has neither AMX nor AVX512-BF16: bf16 is not to be had, use fp32 or auto");
    fail(I2SB_ERROR_ARGUMENT, "precision '" + asked + "' is not one of auto, fp32, bf16");
  }

  // The most recently used sizes come first.
  Network& network_for(const Size& size) {
    for (auto it = networks_.begin(); it != networks_.end(); ++it)
      if (it->size == size) {
        networks_.splice(networks_.begin(), networks_, it);
        return networks_.front();
      }
    networks_.push_front(compile(size));
    if (networks_.size() > COMPILED_KEPT) networks_.pop_back();
    return networks_.front();
  }

  // From the bytes that were read once; weights in a second file are found beside the first one only.
  Status read_model(Model** read) const {
    const bool apart =
        std::any_of(model_.tensors.begin(), model_.tensors.end(), [](const i2sb::Tensor& t) { return t.elsewhere; });
    if (apart) return api_.core_read_model(core_.get(), model_.path.c_str(), nullptr, read);
    return api_.core_read_model_from_memory_buffer(core_.get(), model_.bytes.data(), model_.bytes.size(), nullptr,
                                                   read);
  }

  Network compile(const Size& size) const {
    Model* read = nullptr;
    api_.check(read_model(&read), "to read the model");
    const Owned<Model> model(read, api_.model_free);
    Dimension x_dims[] = {
        {size.batch, size.batch}, {size.channels, size.channels}, {size.height, size.height}, {size.width, size.width}};
    const char* names[] = {"x", "t"};
    const PartialShape shapes[] = {{{4, 4}, x_dims}, {{1, 1}, x_dims}};
    api_.check(api_.model_reshape(model.get(), names, shapes, 2), "to fix the size of the network");

    const char* hint = precision_ == "bf16" ? "bf16" : "f32";
    const char* threads = threads_.c_str();
    Compiled* made = nullptr;
    const auto compile_model = [&](auto... cache) {
      constexpr size_t words = 8 + sizeof...(cache);
      return api_.core_compile_model(core_.get(), model.get(), DEVICE, words, &made, "PERFORMANCE_HINT", "LATENCY",
                                     "NUM_STREAMS", "1", "INFERENCE_NUM_THREADS", threads, "INFERENCE_PRECISION_HINT",
                                     hint, cache...);
    };
    const Status status = cache_.empty() ? compile_model() : compile_model("CACHE_DIR", cache_.c_str());
    api_.check(status, "to compile the network");
    Owned<Compiled> compiled(made, api_.compiled_model_free);
    Request* request = nullptr;
    api_.check(api_.compiled_model_create_infer_request(compiled.get(), &request), "to make a request");
    Network network{size, std::move(compiled), Owned<Request>(request, api_.infer_request_free), 0, 0, 0};
    network.x_type = port_type(*network.compiled, api_.compiled_model_input_by_name, "x");
    network.t_type = port_type(*network.compiled, api_.compiled_model_input_by_name, "t");
    network.out_type = port_type(*network.compiled, api_.compiled_model_output_by_name, "out");
    return network;
  }

  // The element type of a port, after making sure that it is as wide as the floats we give.
  ElementType port_type(const Compiled& compiled, Status (*find)(const Compiled*, const char*, Port**),
                        const char* name) const {
    Port* found = nullptr;
    api_.check(find(&compiled, name, &found), ("to find the port " + std::string(name)).c_str());
    const Owned<Port> port(found, api_.output_const_port_free);
    ElementType type = 0;
    api_.check(api_.port_get_element_type(port.get(), &type), "to tell a port's type");
    float probe = 0;
    int64_t one = 1;
    Tensor* made = nullptr;
    api_.check(api_.tensor_create_from_host_ptr(type, {1, &one}, &probe, &made), "to wrap a tensor");
    const Owned<Tensor> tensor(made, api_.tensor_free);
    size_t bytes = 0;
    api_.check(api_.tensor_get_byte_size(tensor.get(), &bytes), "to tell a tensor's size");
    if (bytes != sizeof(float)) fail(I2SB_ERROR_MODEL, "the model's port " + std::string(name) + " is not float32");
    return type;
  }

  Api api_;
  const i2sb_model& model_;
  std::string threads_, cache_, precision_;
  Owned<Core> core_;
  std::list<Network> networks_;
};

i2sb_status predict(void* self, int32_t batch, int32_t in_channels, int32_t out_channels, int32_t height, int32_t width,
                    const float* x, const float* t, float* out, i2sb_error* error) {
  return guard(error, [&] {
    static_cast<Engine*>(self)->predict({batch, in_channels, height, width}, out_channels, x, t, out);
  });
}

void free_engine(void* self) { delete static_cast<Engine*>(self); }

const Engine* engine_of(const i2sb_engine* engine) {
  return engine && engine->predict == predict ? static_cast<const Engine*>(engine->self) : nullptr;
}

}  // namespace
}  // namespace i2sb::openvino

extern "C" {

i2sb_status i2sb_openvino_engine(const i2sb_model* model, const i2sb_openvino_options* options, i2sb_engine* engine,
                                 i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require(model && engine, "model or engine is NULL");
    i2sb::require_struct(options, "options");
    auto made = std::make_unique<i2sb::openvino::Engine>(*model, *options);
    *engine = {sizeof *engine, made.release(), i2sb::openvino::predict, i2sb::openvino::free_engine};
  });
}

const char* i2sb_openvino_precision(const i2sb_engine* engine) {
  const auto* openvino = i2sb::openvino::engine_of(engine);
  return openvino ? openvino->precision().c_str() : "";
}

const char* i2sb_openvino_release(const i2sb_engine* engine) {
  const auto* openvino = i2sb::openvino::engine_of(engine);
  return openvino ? openvino->release().c_str() : "";
}

}  // extern "C"
