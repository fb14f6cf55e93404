/* Restores through the library and, turn about, the bare OpenVINO calls that it makes: milliseconds of each pair.
 * usage: embedding MODEL.onnx WIDTH HEIGHT PAIRS; bench_embedding.py builds and reads it. */
#include <i2sb_rt.h>
#include <openvino/c/openvino.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static float clamped(float value) { return value < -1 ? -1 : value > 1 ? 1 : value; }

static void must(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "%s: %s\n", what, i2sb_last_error());
  exit(1);
}

/* As a session's own engine compiles it. */
static ov_infer_request_t* bare_request(const char* path, int32_t channels, int32_t height, int32_t width,
                                        ov_core_t** core) {
  ov_model_t* model = NULL;
  ov_compiled_model_t* compiled = NULL;
  ov_infer_request_t* request = NULL;
  const char* names[] = {"x", "t"};
  ov_partial_shape_t shapes[2];
  char threads[16];
  must(ov_core_create(core) == OK && ov_core_read_model(*core, path, NULL, &model) == OK, "OpenVINO reads");
  must(ov_partial_shape_create_static(4, (int64_t[]){1, channels, height, width}, &shapes[0]) == OK, "a shape");
  must(ov_partial_shape_create_static(1, (int64_t[]){1}, &shapes[1]) == OK, "a shape");
  must(ov_model_reshape(model, names, shapes, 2) == OK, "OpenVINO reshapes");
  snprintf(threads, sizeof threads, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
  must(ov_core_compile_model(*core, model, "CPU", 8, &compiled, "PERFORMANCE_HINT", "LATENCY", "NUM_STREAMS", "1",
                             "INFERENCE_NUM_THREADS", threads, "INFERENCE_PRECISION_HINT", "f32") == OK,
       "OpenVINO compiles");
  must(ov_compiled_model_create_infer_request(compiled, &request) == OK, "OpenVINO makes a request");
  return request;
}

static void give(ov_infer_request_t* request, const char* name, int rank, int64_t* dims, float* values) {
  ov_shape_t shape = {rank, dims};
  ov_tensor_t* tensor = NULL;
  must(ov_tensor_create_from_host_ptr(F32, shape, values, &tensor) == OK, "a tensor");
  must(ov_infer_request_set_tensor(request, name, tensor) == OK, "a tensor");
  ov_tensor_free(tensor);
}

int main(int count, char** arguments) {
  if (count != 5) return 2;
  const int32_t width = atoi(arguments[2]), height = atoi(arguments[3]), pairs = atoi(arguments[4]);
  const size_t values = (size_t)width * (size_t)height * 3;
  unsigned char *photo = malloc(values), *restored = malloc(values);
  float *x = malloc(2 * values * sizeof *x), *out = malloc(values * sizeof *out), t = 0;
  for (size_t i = 0; i < values; ++i) photo[i] = (unsigned char)(i * 2654435761u >> 13);

  i2sb_model_params loading;
  i2sb_model_params_init(&loading, sizeof loading);
  loading.path = arguments[1];
  i2sb_model* model = NULL;
  i2sb_session* session = NULL;
  i2sb_openvino_options options;
  i2sb_openvino_options_init(&options, sizeof options);
  options.precision = "fp32";
  i2sb_session_params opening;
  i2sb_session_params_init(&opening, sizeof opening);
  opening.openvino = &options;
  must(i2sb_model_load(&loading, &model) == I2SB_OK, "loading");
  must(i2sb_session_create(model, &opening, &session) == I2SB_OK, "a session");

  /* A network that is shown x1 beside x sees the photo twice. */
  const char* shown = i2sb_model_metadata(model, "i2sb.cond_x1");
  const int32_t channels = shown && *shown == '1' ? 6 : 3;

  /* The network's input of the one call, and its output: what the plan makes of it must be the restored bytes. */
  float rows[I2SB_ROW_COLUMNS];
  i2sb_plan plan = {sizeof plan, 0, NULL, 0, 0};
  i2sb_plan_params asked;
  i2sb_plan_params_init(&asked, sizeof asked);
  asked.model = model;
  asked.nfe = 1;
  must(i2sb_plan_make(&asked, rows, NULL, &plan) == I2SB_OK, "a plan");
  for (size_t c = 0; c < 3; ++c)
    for (size_t i = 0; i < values / 3; ++i)
      x[values + c * (values / 3) + i] = x[c * (values / 3) + i] = (float)photo[3 * i + c] / 127.5f - 1;
  t = rows[0];

  const i2sb_image from = {sizeof from, width, height, 3, I2SB_U8, photo, 0};
  const i2sb_image to = {sizeof to, width, height, 3, I2SB_U8, restored, 0};
  i2sb_restore_params restoring;
  i2sb_restore_params_init(&restoring, sizeof restoring);
  restoring.plan = &plan;
  restoring.image = &from;
  restoring.out = &to;
  restoring.tile = 0;

  ov_core_t* core = NULL;
  ov_infer_request_t* request = bare_request(arguments[1], channels, height, width, &core);
  for (int32_t pair = -1; pair < pairs; ++pair) { /* the first one warms up */
    const double begin = now_ms();
    must(i2sb_restore(session, &restoring) == I2SB_OK, "restoring");
    const double between = now_ms();
    give(request, "x", 4, (int64_t[]){1, channels, height, width}, x);
    give(request, "t", 1, (int64_t[]){1}, &t);
    give(request, "out", 4, (int64_t[]){1, 3, height, width}, out);
    must(ov_infer_request_infer(request) == OK, "OpenVINO runs");
    const double end = now_ms();
    if (pair >= 0) printf("%.4f %.4f\n", between - begin, end - between);
  }
  float worst = 0;
  for (size_t c = 0; c < 3; ++c)
    for (size_t i = 0; i < values / 3; ++i) {
      const size_t at = c * (values / 3) + i;
      const float x0 = rows[1] * x[at] + rows[2] * out[at];
      const float kept = clamped(rows[3] * x[at] + rows[4] * (plan.clip ? clamped(x0) : x0));
      const float apart = (kept + 1) * 127.5f - (float)restored[3 * i + c];
      worst = apart > worst ? apart : -apart > worst ? -apart : worst;
    }
  must(worst < 0.501f, "not timed: the two differ");
  i2sb_session_free(session);
  i2sb_model_free(model);
  return 0;
}
