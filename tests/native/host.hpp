// What tests in C++ share: a model made in memory, and a network of the host's own.
#pragma once

#include <string>

#include "check.h"
#include "i2sb_rt.hpp"
#include "onnx_bytes.hpp"

namespace tests {

inline i2sb_status load(const std::string& bytes, i2sb_model** model, const i2sb_allocator* allocator = nullptr) {
  i2sb_model_params params = i2sb_rt::model_params();
  params.data = bytes.data();
  params.data_size = bytes.size();
  params.allocator = allocator;
  return i2sb_model_load(&params, model);
}

inline i2sb_rt::Model load(const Metadata& changes = {}) {
  const std::string bytes = onnx_bytes(changes);
  i2sb_model_params params = i2sb_rt::model_params();
  params.data = bytes.data();
  params.data_size = bytes.size();
  return i2sb_rt::Model(params);
}

// Any network will do that looks at the state, the time and, where there are more channels in than out, at the rest.
inline i2sb_status mix(void*, const i2sb_network_call* call) {
  const size_t area = static_cast<size_t>(call->height) * call->width;
  const size_t in = call->in_channels * area, out = call->out_channels * area;
  for (int b = 0; b < call->batch; ++b)
    for (size_t i = 0; i < out; ++i)
      call->out[b * out + i] = 0.5f * call->x[b * in + i] + 0.25f * call->x[b * in + in - 1 - i] + 1e-4f * call->t[b];
  return I2SB_OK;
}

inline i2sb_engine engine_of(i2sb_status (*predict)(void*, const i2sb_network_call*), void* self = nullptr) {
  return {sizeof(i2sb_engine), self, predict, nullptr, nullptr};
}

inline i2sb_rt::Session session_of(const i2sb_rt::Model& model, const i2sb_engine& engine = engine_of(mix)) {
  i2sb_session_params params = i2sb_rt::session_params();
  params.threads = 2;
  return i2sb_rt::Session(model, i2sb_rt::Engine(model, engine), params);
}

}  // namespace tests
