// What is the ABI's alone: its version, the last error, the defaults of its structs, and where their fields lie.
#include <cstddef>
#include <cstring>

#include "failure.hpp"
#include "i2sb_rt.h"

namespace {

// Text of a thread's last failure. Of fixed size, so that it can be kept where memory has run out.
thread_local char last_error[i2sb::SENTENCE_SIZE];

// Gives defaults to a struct of the caller's size, which an older or a newer header may have.
template <typename Struct>
void init(Struct* to, size_t size, Struct defaults) {
  if (!to || size < sizeof defaults.struct_size) return;
  defaults.struct_size = static_cast<uint32_t>(size);
  std::memset(to, 0, size);
  std::memcpy(to, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

// Programs are built against these: a field never moves.
#define I2SB_AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
// No struct ends in padding: a field appended there would find anything in programs that were built before.
#define I2SB_FULL(type, last, size)                                                            \
  static_assert(sizeof(type) == (size) && offsetof(type, last) + sizeof(type::last) == (size), \
                #type " has another size, or ends in padding")
I2SB_AT(i2sb_model_params, path, 8);
I2SB_AT(i2sb_model_params, read, 32);
I2SB_AT(i2sb_model_params, log_user, 64);
I2SB_AT(i2sb_tensor, name, 16);
I2SB_AT(i2sb_tensor, data_size, 40);
I2SB_AT(i2sb_plan, rows, 8);
I2SB_AT(i2sb_plan, known, 20);
I2SB_AT(i2sb_schedule, beta_max, 8);
I2SB_AT(i2sb_schedule, T, 24);
I2SB_AT(i2sb_plan_params, model, 8);
I2SB_AT(i2sb_plan_params, eta, 40);
I2SB_AT(i2sb_plan_params, clip, 56);
I2SB_AT(i2sb_plan_params, gammas, 64);
I2SB_AT(i2sb_plan_params, gamma_count, 80);
I2SB_AT(i2sb_network_call, x, 24);
I2SB_AT(i2sb_network_call, out, 40);
I2SB_AT(i2sb_engine, predict, 16);
I2SB_AT(i2sb_engine, free, 32);
I2SB_AT(i2sb_openvino_options, precision, 16);
I2SB_AT(i2sb_openvino_options, log_user, 48);
I2SB_AT(i2sb_session_params, engine, 8);
I2SB_AT(i2sb_session_params, log_user, 40);
I2SB_AT(i2sb_event, begin_ns, 24);
I2SB_AT(i2sb_image, data, 24);
I2SB_AT(i2sb_image, stride, 32);
I2SB_AT(i2sb_layout, tile_count, 28);
I2SB_AT(i2sb_restore_params, eta, 16);
I2SB_AT(i2sb_restore_params, seed, 56);
I2SB_AT(i2sb_restore_params, progress_user, 80);
I2SB_AT(i2sb_restore_params, ensemble, 88);
I2SB_AT(i2sb_sample_params, x1, 24);
I2SB_AT(i2sb_sample_params, out, 80);
I2SB_AT(i2sb_sample_params, threads, 120);
I2SB_FULL(i2sb_model_params, log_user, 72);
I2SB_FULL(i2sb_tensor, data_size, 48);
I2SB_FULL(i2sb_plan, known, 24);
I2SB_FULL(i2sb_schedule, T, 32);
I2SB_FULL(i2sb_plan_params, reserved, 88);
I2SB_FULL(i2sb_network_call, out, 48);
I2SB_FULL(i2sb_engine, free, 40);
I2SB_FULL(i2sb_openvino_options, log_user, 56);
I2SB_FULL(i2sb_session_params, log_user, 48);
I2SB_FULL(i2sb_event, end_ns, 40);
I2SB_FULL(i2sb_image, stride, 40);
I2SB_FULL(i2sb_layout, tile_count, 32);
I2SB_FULL(i2sb_restore_params, reserved, 96);
I2SB_FULL(i2sb_sample_params, reserved, 128);

}  // namespace

extern "C" {

uint32_t i2sb_abi_version(void) { return I2SB_ABI_VERSION; }

const char* i2sb_version_string(void) { return I2SB_VERSION; }

const char* i2sb_last_error(void) { return last_error; }

i2sb_status i2sb_fail(i2sb_status status, const char* sentence) {
  if (!sentence) sentence = "";
  size_t length = std::strlen(sentence);
  if (length >= sizeof last_error) {
    length = sizeof last_error - 1;
    while (length > 0 && (sentence[length] & 0xc0) == 0x80) --length;  // no character is cut in two
  }
  std::memmove(last_error, sentence, length);  // it may be i2sb_last_error's own
  last_error[length] = '\0';
  return status;
}

void i2sb_model_params_init(i2sb_model_params* params, size_t struct_size) { init(params, struct_size, {}); }

void i2sb_plan_params_init(i2sb_plan_params* params, size_t struct_size) {
  i2sb_plan_params defaults{};
  defaults.eta = -1;
  defaults.clip = -1;
  init(params, struct_size, defaults);
}

void i2sb_openvino_options_init(i2sb_openvino_options* options, size_t struct_size) { init(options, struct_size, {}); }

void i2sb_session_params_init(i2sb_session_params* params, size_t struct_size) { init(params, struct_size, {}); }

void i2sb_sample_params_init(i2sb_sample_params* params, size_t struct_size) { init(params, struct_size, {}); }

void i2sb_restore_params_init(i2sb_restore_params* params, size_t struct_size) {
  i2sb_restore_params defaults{};
  defaults.eta = -1;
  defaults.tile = defaults.overlap = -1;
  init(params, struct_size, defaults);
}

}  // extern "C"
