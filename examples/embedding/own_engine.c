/* Restores with an engine of the program's own: own_engine MODEL.onnx IN.ppm OUT.ppm RADIUS [MEGABYTES]
 *
 * The "network" is a mean over squares of side 2 RADIUS + 1, said to predict the clean image. Of the model only what it
 * says of itself is used: channels, sizes, schedule and sampler. The library gets its memory from here, at most
 * MEGABYTES of it, and tells here what it does.
 * Exit codes: 0 done, 2 wrong arguments, 3 an image's file, 10 + i2sb_status where the library failed. */
#define _POSIX_C_SOURCE 200112L
#include <i2sb_rt.h>
#include <stdio.h>
#include <stdlib.h>

#include "ppm.h"

enum { USAGE = 2, IMAGE = 3, LIBRARY = 10, MEGABYTE = 1 << 20 };

/* ---- the engine -------------------------------------------------------------------------------------------------- */
typedef struct smoother {
  int radius, calls;
} smoother;

/* Means over 2 r + 1 values, `step` apart, of which those at the ends are repeated. */
static void smooth_line(const float* from, float* to, int count, size_t step, int r) {
  double sum = 0;
  int i;
  for (i = -r; i <= r; ++i) sum += from[(size_t)(i < 0 ? 0 : i) * step];
  for (i = 0; i < count; ++i) {
    const int leaves = i - r < 0 ? 0 : i - r, enters = i + r + 1 < count ? i + r + 1 : count - 1;
    to[(size_t)i * step] = (float)(sum / (2 * r + 1));
    sum += (double)from[(size_t)enters * step] - from[(size_t)leaves * step];
  }
}

static i2sb_status predict(void* self, const i2sb_network_call* call) {
  smoother* engine = self;
  const int height = call->height, width = call->width, r = engine->radius;
  const size_t row = (size_t)width, area = row * (size_t)height;
  float* rows;
  int image, channel, i;
  if (r >= height || r >= width) return i2sb_fail(I2SB_ERROR_ENGINE, "the image is smaller than the radius");
  rows = malloc(area * sizeof *rows);
  if (!rows) return i2sb_fail(I2SB_ERROR_MEMORY, "no memory for the rows");
  for (image = 0; image < call->batch; ++image) {
    for (channel = 0; channel < call->out_channels; ++channel) {
      /* Channels behind the image's, of models that are shown more than it, are not looked at. */
      const float* x = call->x + ((size_t)image * (size_t)call->in_channels + (size_t)channel) * area;
      float* out = call->out + ((size_t)image * (size_t)call->out_channels + (size_t)channel) * area;
      for (i = 0; i < height; ++i) smooth_line(x + (size_t)i * row, rows + (size_t)i * row, width, 1, r);
      for (i = 0; i < width; ++i) smooth_line(rows + i, out + i, height, row, r);
    }
  }
  ++engine->calls;
  free(rows);
  return I2SB_OK;
}

/* ---- the allocator and the log ----------------------------------------------------------------------------------- */
typedef struct budget {
  size_t used, most, limit;
} budget;

/* One thread uses the objects here: else this would need a lock. */
static void* allocate(void* user, size_t size, size_t alignment) {
  budget* memory = user;
  void* block = NULL;
  if (size > memory->limit - memory->used) return NULL;
  if (posix_memalign(&block, alignment < sizeof(void*) ? sizeof(void*) : alignment, size) != 0) return NULL;
  memory->used += size;
  if (memory->used > memory->most) memory->most = memory->used;
  return block;
}

static void release(void* user, void* block, size_t size) {
  ((budget*)user)->used -= size;
  free(block);
}

static void log_line(void* user, const char* sentence) { fprintf(stderr, "%s: %s\n", (const char*)user, sentence); }

/* ---- restoring --------------------------------------------------------------------------------------------------- */
/* The model's plan, of a network that says x0 itself. Free its rows. */
static i2sb_status make_plan(const i2sb_model* model, i2sb_plan* plan, float** rows) {
  i2sb_plan_params params;
  i2sb_status status;
  i2sb_plan_params_init(&params, sizeof params);
  params.model = model;
  params.prediction = "mean";
  status = i2sb_plan_make(&params, NULL, NULL, plan);
  if (status != I2SB_OK) return status;
  params.nfe = plan->row_count;
  *rows = malloc((size_t)plan->row_count * I2SB_ROW_COLUMNS * sizeof **rows);
  if (!*rows) return i2sb_fail(I2SB_ERROR_MEMORY, "no memory for the plan");
  return i2sb_plan_make(&params, *rows, NULL, plan);
}

static i2sb_status restore(const char* path, const ppm* in, ppm* out, smoother* self, i2sb_allocator* allocator) {
  const i2sb_engine engine = {sizeof engine, self, predict, NULL, NULL};
  i2sb_model_params loading;
  i2sb_session_params opening;
  i2sb_restore_params params;
  i2sb_layout layout = {0};
  i2sb_plan plan = {0};
  i2sb_image from = ppm_view(in), to;
  i2sb_model* model = NULL;
  i2sb_session* session = NULL;
  float* rows = NULL;
  i2sb_status status;

  i2sb_model_params_init(&loading, sizeof loading);
  loading.path = path;
  i2sb_session_params_init(&opening, sizeof opening);
  opening.engine = &engine;
  loading.allocator = opening.allocator = allocator;
  loading.log = opening.log = log_line;
  loading.log_user = opening.log_user = "own_engine";
  layout.struct_size = sizeof layout;
  plan.struct_size = sizeof plan;

  status = i2sb_model_load(&loading, &model);
  if (status == I2SB_OK) status = i2sb_model_layout(model, in->width, in->height, -1, -1, &layout);
  if (status == I2SB_OK && !ppm_make(out, layout.width, layout.height, in->channels))
    status = i2sb_fail(I2SB_ERROR_MEMORY, "no memory for the result");
  if (status == I2SB_OK) status = make_plan(model, &plan, &rows);
  if (status == I2SB_OK) status = i2sb_session_create(model, &opening, &session);
  if (status == I2SB_OK) {
    to = ppm_view(out);
    i2sb_restore_params_init(&params, sizeof params);
    params.image = &from;
    params.out = &to;
    params.plan = &plan;
    status = i2sb_restore(session, &params);
  }
  i2sb_session_free(session);
  i2sb_model_free(model);
  free(rows);
  return status;
}

static int usage(void) {
  fprintf(stderr, "usage: own_engine MODEL.onnx IN.ppm OUT.ppm RADIUS [MEGABYTES]\n");
  return USAGE;
}

int main(int count, char** arguments) {
  smoother self = {0, 0};
  budget memory = {0, 0, (size_t)1024 * MEGABYTE};
  i2sb_allocator allocator = {allocate, release, NULL};
  ppm in, out = {0, 0, 0, NULL};
  const char* wrong;
  i2sb_status status;
  if (count != 5 && count != 6) return usage();
  self.radius = atoi(arguments[4]);
  if (count == 6) memory.limit = (size_t)atoi(arguments[5]) * MEGABYTE;
  if (self.radius < 0 || self.radius > PPM_LARGEST_SIDE || (count == 6 && atoi(arguments[5]) < 0)) return usage();
  allocator.user = &memory;

  wrong = ppm_read(arguments[2], &in);
  if (wrong) {
    fprintf(stderr, "own_engine: %s %s\n", arguments[2], wrong);
    return IMAGE;
  }
  status = restore(arguments[1], &in, &out, &self, &allocator);
  if (status != I2SB_OK) {
    fprintf(stderr, "own_engine: %s\n", i2sb_last_error());
  } else if ((wrong = ppm_write(arguments[3], &out)) != NULL) {
    fprintf(stderr, "own_engine: %s %s\n", arguments[3], wrong);
  } else {
    printf("%d network calls, %zu bytes at most, %zu left\n", self.calls, memory.most, memory.used);
  }
  free(out.pixels);
  free(in.pixels);
  return status != I2SB_OK ? LIBRARY + (int)status : wrong ? IMAGE : 0;
}
