// i2sb_rt.h for C++17: objects that free themselves, and exceptions. Header only.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "i2sb_rt.h"

namespace i2sb_rt {

// What a function of the library failed with; what() is the sentence.
class Error : public std::runtime_error {
 public:
  explicit Error(i2sb_status status) : std::runtime_error(i2sb_last_error()), status(status) {}
  i2sb_status status;
};

inline void check(i2sb_status status) {
  if (status != I2SB_OK) throw Error(status);
}

// Structs of parameters with their defaults.
template <typename Params>
Params defaults_of(void (*init)(Params*, size_t)) {
  Params params;
  init(&params, sizeof params);
  return params;
}
inline i2sb_model_params model_params() { return defaults_of(i2sb_model_params_init); }
inline i2sb_plan_params plan_params() { return defaults_of(i2sb_plan_params_init); }
inline i2sb_openvino_options openvino_options() { return defaults_of(i2sb_openvino_options_init); }
inline i2sb_session_params session_params() { return defaults_of(i2sb_session_params_init); }
inline i2sb_sample_params sample_params() { return defaults_of(i2sb_sample_params_init); }
inline i2sb_restore_params restore_params() { return defaults_of(i2sb_restore_params_init); }

// Pixels that belong to the caller: uint8_t or float, const or not. Whether they may be written is the caller's to
// know.
inline i2sb_image image(const uint8_t* data, int width, int height, int channels, ptrdiff_t stride = 0) {
  return {sizeof(i2sb_image), width, height, channels, I2SB_U8, const_cast<uint8_t*>(data), stride};
}
inline i2sb_image image(const float* data, int width, int height, int channels, ptrdiff_t stride = 0) {
  return {sizeof(i2sb_image), width, height, channels, I2SB_F32, const_cast<float*>(data), stride};
}

// A model file: immutable, shared between threads at will.
class Model {
 public:
  explicit Model(const i2sb_model_params& params) : model_(load(params), i2sb_model_free) {}
  explicit Model(const std::string& path) : Model(from_path(path)) {}

  const i2sb_model* get() const { return model_.get(); }
  // The value of a key such as "i2sb.name"; empty if the model lacks it.
  std::string metadata(const std::string& key) const {
    const char* value = i2sb_model_metadata(get(), key.c_str());
    return value ? value : "";
  }
  // What a restore of an image of this size does; -1 is the model's own choice.
  i2sb_layout layout(int width, int height, int tile = -1, int overlap = -1) const {
    i2sb_layout layout{};
    layout.struct_size = sizeof layout;
    check(i2sb_model_layout(get(), width, height, tile, overlap, &layout));
    return layout;
  }

 private:
  static i2sb_model* load(const i2sb_model_params& params) {
    i2sb_model* model = nullptr;
    check(i2sb_model_load(&params, &model));
    return model;
  }
  static Model from_path(const std::string& path) {
    i2sb_model_params params = model_params();
    params.path = path.c_str();
    return Model(params);
  }

  std::shared_ptr<i2sb_model> model_;
};

// An engine that any number of sessions and threads share: OpenVINO's, or a table of the host's functions.
class Engine {
 public:
  explicit Engine(const Model& model, const i2sb_openvino_options& options = openvino_options())
      : Engine(model, make(model, options)) {}
  // Takes the table over: its free is called with the last copy. The model, if any, is kept until then.
  Engine(const Model& model, const i2sb_engine& engine)
      : engine_(new i2sb_engine(engine), [model](i2sb_engine* last) {
          i2sb_engine_free(last);
          delete last;
        }) {}

  const i2sb_engine* get() const { return engine_.get(); }
  std::string precision() const { return i2sb_openvino_precision(get()); }

 private:
  static i2sb_engine make(const Model& model, const i2sb_openvino_options& options) {
    i2sb_engine engine{};
    engine.struct_size = sizeof engine;
    check(i2sb_openvino_engine(model.get(), &options, &engine));
    return engine;
  }

  std::shared_ptr<i2sb_engine> engine_;
};

// One a thread. cancel may be called from any.
class Session {
 public:
  Session(Model model, Engine engine, i2sb_session_params params = session_params())
      : model_(std::move(model)), engine_(std::move(engine)), session_(make(params), i2sb_session_free) {}

  i2sb_session* get() const { return session_.get(); }
  void cancel() const { i2sb_session_cancel(get()); }

  // Restores `from` into `to`, of the layout's size. progress: told of each piece of work; true stops, with an Error of
  // I2SB_ERROR_CANCELLED. It must not throw.
  void restore(const i2sb_image& from, const i2sb_image& to, i2sb_restore_params params = restore_params(),
               const std::function<bool(const i2sb_event&)>& progress = {}) const {
    params.image = &from;
    params.out = &to;
    if (progress) {
      params.progress = [](void* user, const i2sb_event* event) -> int32_t {
        return (*static_cast<const std::function<bool(const i2sb_event&)>*>(user))(*event);
      };
      params.progress_user = const_cast<std::function<bool(const i2sb_event&)>*>(&progress);
    }
    check(i2sb_restore(get(), &params));
  }

 private:
  i2sb_session* make(i2sb_session_params& params) const {
    params.engine = engine_.get();
    i2sb_session* session = nullptr;
    check(i2sb_session_create(model_.get(), &params, &session));
    return session;
  }

  Model model_;
  Engine engine_;
  std::unique_ptr<i2sb_session, void (*)(i2sb_session*)> session_;
};

}  // namespace i2sb_rt
