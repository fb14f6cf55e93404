// OpenVINO as an engine: the network on CPUs.
#include <locale.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "kept.hpp"
#include "loop.hpp"
#include "model_file.hpp"
#include "openvino_api.hpp"

namespace i2sb::openvino {
namespace {

constexpr const char* DEVICE = "CPU";
constexpr int COMPILED_KEPT = 4;  // sizes that stay compiled, more where there are more streams
constexpr int CACHED = 8;         // sizes an engine looks up, or else leaves, in the cache folder: weights and all
constexpr int MAX_STREAMS = 256;
// Bytes of a model that OpenVINO reads itself, and whose networks are not left in the cache folder.
constexpr size_t LARGE = size_t{256} << 20;

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

// Puts the thread's alternate signal stack back at the end of a scope. OpenVINO's CPU plugin installs one of its own
// where it is first used, and unmaps it when it is freed, wherever that happens: the next signal would kill the
// process.
class KeptSignalStack {
 public:
  KeptSignalStack() { sigaltstack(nullptr, &before_); }
  KeptSignalStack(const KeptSignalStack&) = delete;
  KeptSignalStack& operator=(const KeptSignalStack&) = delete;
  ~KeptSignalStack() {
    // Refused where it has become too small for the registers of AMX: then handlers run on the thread's own stack.
    if (before_.ss_flags == 0 && sigaltstack(&before_, nullptr) == 0) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }

 private:
  stack_t before_{};
};

struct Size {
  int batch, channels, height, width;
  int times;  // 1 where the whole batch has one time, else as many as the batch
  bool operator==(const Size&) const = default;
};

// The network compiled for one size, with static shapes: how it is compiled is a function of the size alone, so no
// picture depends on what was restored before.
struct Network {
  explicit Network(const Size& size) : size(size) {}

  const Size size;
  std::mutex mutex;  // of all below
  Owned<Compiled> compiled{nullptr, nullptr};
  std::vector<Owned<Request>> idle;
  ElementType x_type = 0, t_type = 0, out_type = 0;
};

// Streams that are free. No std::counting_semaphore: waiters of GCC's may sleep on where one has become free (its bugs
// 98033 and 104928).
class Streams {
 public:
  explicit Streams(int count) : free_(count) {}

  // One of them, for as long as it lives.
  class Turn {
   public:
    explicit Turn(Streams& streams) : streams_(streams) {
      std::unique_lock lock(streams_.mutex_);
      streams_.freed_.wait(lock, [&] { return streams_.free_ > 0; });
      --streams_.free_;
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      {
        const std::lock_guard lock(streams_.mutex_);
        ++streams_.free_;
      }
      streams_.freed_.notify_one();
    }

   private:
    Streams& streams_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  int free_;
};

class Engine {
 public:
  Engine(const i2sb_model& model, const i2sb_openvino_options& options)
      : api_(library(options)),
        model_(model),
        threads_(std::to_string(thread_count(options.threads))),
        streams_(std::clamp(options.streams, 1, MAX_STREAMS)),
        free_streams_(streams_),
        cache_(options.cache_dir ? options.cache_dir : ""),
        log_(options.log),
        log_user_(options.log_user),
        core_(nullptr, api_.core_free) {
    if (options.threads < 0) fail(I2SB_ERROR_ARGUMENT, "threads must not be negative");
    if (options.streams < 0 || options.streams > MAX_STREAMS)
      fail(I2SB_ERROR_ARGUMENT, "streams must be 0 to " + std::to_string(MAX_STREAMS));
    const KeptSignalStack kept;
    Core* core = nullptr;
    api_.check(api_.core_create(&core), "to start");
    core_.reset(core);
    precision_ = choose_precision(options.precision ? options.precision : "auto");
    say("OpenVINO " + api_.release + " in " + precision_ + ", " + threads_ + " threads");
  }

  // How many times the network is given. What points share is computed once: else it costs more than the points.
  int times(const float* t, int batch) const {
    const bool shared = model_.rules.holds_points && std::all_of(t, t + batch, [&](float one) { return one == t[0]; });
    return shared ? 1 : batch;
  }

  // From any thread; as many calls as there are streams run at once, the others wait.
  void predict(const Size& size, int out_channels, const float* x, const float* t, float* out) {
    const Streams::Turn turn(free_streams_);
    const std::shared_ptr<Network> network = network_for(size);
    Owned<Request> request = take_request(*network);
    int64_t x_dims[] = {size.batch, size.channels, size.height, size.width}, t_dims[] = {size.times};
    int64_t out_dims[] = {size.batch, out_channels, size.height, size.width};
    const auto give = [&](const char* name, ElementType type, Shape shape, const float* data) {
      Tensor* made = nullptr;
      // The API has no pointer to const; inputs are only read.
      api_.check(api_.tensor_create_from_host_ptr(type, shape, const_cast<float*>(data), &made), "to wrap a tensor");
      const Owned<Tensor> tensor(made, api_.tensor_free);
      api_.check(api_.infer_request_set_tensor(request.get(), name, tensor.get()), "to take a tensor");
    };
    give("x", network->x_type, {4, x_dims}, x);
    give("t", network->t_type, {1, t_dims}, t);
    give("out", network->out_type, {4, out_dims}, out);
    api_.check(api_.infer_request_infer(request.get()), "to run the network");
    const std::lock_guard lock(network->mutex);
    network->idle.push_back(std::move(request));
  }

  const std::string& precision() const { return precision_; }
  const std::string& release() const { return api_.release; }

 private:
  static std::string library(const i2sb_openvino_options& options) {
    if (options.library && *options.library) return options.library;
    const char* named = secure_getenv("I2SB_RT_OPENVINO");  // not of a program with more rights than its caller
    return named ? named : "";
  }

  void say(const std::string& sentence) const {
    if (log_) log_(log_user_, sentence.c_str());
  }

  std::string choose_precision(const std::string& asked) const {
    char* value = nullptr;
    api_.check(api_.core_get_property(core_.get(), DEVICE, "OPTIMIZATION_CAPABILITIES", &value),
               "to tell what the CPU can do");
    const bool bf16 = std::string(value).find("BF16") != std::string::npos;
    api_.free(value);
    // A picture's 8 bits hide what bf16 rounds; the coordinates of points do not, and their networks are small.
    if (asked == "auto") return bf16 && !model_.rules.holds_points ? "bf16" : "fp32";
    if (asked == "fp32" || (asked == "bf16" && bf16)) return asked;
    if (asked == "bf16")
      fail(I2SB_ERROR_ENGINE, "this CPU has neither AMX nor AVX512-BF16: bf16 is not to be had, use fp32 or auto");
    fail(I2SB_ERROR_ARGUMENT, "precision '" + asked + "' is not one of auto, fp32, bf16");
  }

  // The most recently used sizes come first. A network that is at work outlives its place in the list.
  std::shared_ptr<Network> network_for(const Size& size) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(networks_.begin(), networks_.end(), [&](const auto& n) { return n->size == size; });
    if (found != networks_.end()) {
      networks_.splice(networks_.begin(), networks_, found);
    } else {
      networks_.push_front(std::make_shared<Network>(size));
      if (networks_.size() > static_cast<size_t>(std::max(COMPILED_KEPT, streams_))) networks_.pop_back();
    }
    return networks_.front();
  }

  // Compiles the network if that is still to be done: while it is, other sizes run on.
  Owned<Request> take_request(Network& network) {
    const std::lock_guard lock(network.mutex);
    if (!network.compiled) compile(network);
    if (network.idle.empty()) {
      Request* made = nullptr;
      api_.check(api_.compiled_model_create_infer_request(network.compiled.get(), &made), "to make a request");
      return {made, api_.infer_request_free};
    }
    Owned<Request> request = std::move(network.idle.back());
    network.idle.pop_back();
    return request;
  }

  // OpenVINO changes the process's locale for a while when it reads and compiles. Two at once may leave it changed; and
  // what other threads just read of the old one must not be freed under them, so a copy holds on to it.
  static std::mutex& compiling() {
    static std::mutex mutex;
    [[maybe_unused]] static const locale_t held = duplocale(LC_GLOBAL_LOCALE);
    return mutex;
  }

  // From the bytes that were read once. A large model is read again, for OpenVINO would copy it; weights in a second
  // file are found beside the first one only.
  Status read_model(Model** read) const {
    const bool apart =
        std::any_of(model_.tensors.begin(), model_.tensors.end(), [](const i2sb::Tensor& t) { return t.elsewhere; });
    if (apart && model_.path.empty())
      fail(I2SB_ERROR_MODEL, "this model has its weights in a second file: load it from its path");
    if (apart || (model_.bytes.size() > LARGE && !model_.path.empty())) {
      if (FileState::of(model_.path) != model_.state)
        fail(I2SB_ERROR_MODEL, "model file " + std::string(model_.path) +
                                   ": it has changed since it was loaded; it must be loaded again");
      return api_.core_read_model(core_.get(), model_.path.c_str(), nullptr, read);
    }
    return api_.core_read_model_from_memory_buffer(core_.get(), model_.bytes.data(), model_.bytes.size(), nullptr,
                                                   read);
  }

  // Where the networks of this model and size are kept, so that no others are looked through; empty for nowhere.
  std::string cache_folder(const Size& size) const {
    if (cache_.empty() || model_.bytes.size() > LARGE) return {};
    std::string name = digits(digest({model_.bytes.data(), model_.bytes.size()}));
    for (const int side : {size.batch, size.channels, size.height, size.width}) name += "-" + std::to_string(side);
    return cache_ + "/" + name;
  }

  void compile(Network& network) {
    const std::lock_guard alone(compiling());
    const int64_t begin = now_ns();
    const KeptSignalStack kept;
    const Size& size = network.size;
    Model* read = nullptr;
    api_.check(read_model(&read), "to read the model");
    const Owned<Model> model(read, api_.model_free);
    Dimension x_dims[] = {
        {size.batch, size.batch}, {size.channels, size.channels}, {size.height, size.height}, {size.width, size.width}};
    const char* names[] = {"x", "t"};
    Dimension t_dims[] = {{size.times, size.times}};
    const PartialShape shapes[] = {{{4, 4}, x_dims}, {{1, 1}, t_dims}};
    api_.check(api_.model_reshape(model.get(), names, shapes, 2), "to fix the size of the network");

    const char* hint = precision_ == "bf16" ? "bf16" : "f32";
    const char* threads = threads_.c_str();
    const std::string streams = std::to_string(streams_);
    Compiled* made = nullptr;
    const auto compile_model = [&](auto... cache) {
      constexpr size_t words = 8 + sizeof...(cache);
      return api_.core_compile_model(core_.get(), model.get(), DEVICE, words, &made, "PERFORMANCE_HINT", "LATENCY",
                                     "NUM_STREAMS", streams.c_str(), "INFERENCE_NUM_THREADS", threads,
                                     "INFERENCE_PRECISION_HINT", hint, cache...);
    };
    const std::string folder = cache_folder(size);
    const bool cached = !folder.empty() && cached_.fetch_add(1) < CACHED && remove_damaged(folder);
    api_.check(cached ? compile_model("CACHE_DIR", folder.c_str()) : compile_model(), "to compile the network");
    if (cached) note_new(folder);
    Owned<Compiled> compiled(made, api_.compiled_model_free);
    network.x_type = port_type(*compiled, api_.compiled_model_input_by_name, "x");
    network.t_type = port_type(*compiled, api_.compiled_model_input_by_name, "t");
    network.out_type = port_type(*compiled, api_.compiled_model_output_by_name, "out");
    network.compiled = std::move(compiled);
    say("compiled the network for " + std::to_string(size.batch) + " x " + std::to_string(size.channels) + " x " +
        std::to_string(size.height) + " x " + std::to_string(size.width) + " in " +
        std::to_string((now_ns() - begin) / 1000000) + " ms");
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
  const std::string threads_;
  const int streams_;
  Streams free_streams_;
  const std::string cache_;
  const i2sb_log log_;
  void* const log_user_;
  std::string precision_;
  Owned<Core> core_;
  std::atomic<int> cached_ = 0;
  std::mutex mutex_;  // of the list
  std::list<std::shared_ptr<Network>> networks_;
};

i2sb_status predict(void* self, const i2sb_network_call* call) {
  return guard([&] {
    auto* engine = static_cast<Engine*>(self);
    const int times = engine->times(call->t, call->batch);
    const Size size{call->batch, call->in_channels, call->height, call->width, times};
    engine->predict(size, call->out_channels, call->x, call->t, call->out);
  });
}

void free_engine(void* self) { delete static_cast<Engine*>(self); }

const Engine* engine_of(const i2sb_engine* engine) {
  return engine && engine->predict == predict ? static_cast<const Engine*>(engine->self) : nullptr;
}

}  // namespace
}  // namespace i2sb::openvino

extern "C" {

i2sb_status i2sb_openvino_engine(const i2sb_model* model, const i2sb_openvino_options* options, i2sb_engine* engine) {
  return i2sb::guard([&] {
    i2sb_openvino_options defaults;
    i2sb_openvino_options_init(&defaults, sizeof defaults);
    i2sb::require(model && engine, "model or engine is NULL");
    i2sb::require_struct(engine, "engine");
    if (options) i2sb::require_struct(options, "options");
    auto made = std::make_unique<i2sb::openvino::Engine>(*model, options ? *options : defaults);
    i2sb::give_struct(engine, i2sb_engine{sizeof(i2sb_engine), made.release(), i2sb::openvino::predict, nullptr,
                                          i2sb::openvino::free_engine});
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
