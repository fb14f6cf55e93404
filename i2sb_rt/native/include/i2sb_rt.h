/* i2sb_rt: restoring images with diffusion bridges, from C.
 *
 * INTERNAL FOR NOW: the Python package is bound through this header; its layout may still change between versions.
 *
 * Rules that hold for every function: no exception crosses it, nothing is printed, nothing is global. A function that
 * can fail returns an i2sb_status and, on failure, leaves its outputs untouched and writes a sentence to `error` (which
 * may be NULL). Structs begin with their size, set by the caller. Text is UTF-8. Freeing NULL is legal. */
#ifndef I2SB_RT_H
#define I2SB_RT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define I2SB_API __attribute__((visibility("default")))
#else
#define I2SB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum i2sb_status {
  I2SB_OK = 0,
  I2SB_ERROR_INTERNAL = 1,  /* a fault of this library */
  I2SB_ERROR_ARGUMENT = 2,  /* the caller's values do not fit */
  I2SB_ERROR_MEMORY = 3,    /* an allocation failed */
  I2SB_ERROR_MODEL = 4,     /* the model file is missing, broken or not a bridge */
  I2SB_ERROR_ENGINE = 5,    /* the inference engine is missing or failed */
  I2SB_ERROR_NONFINITE = 6, /* the result holds NaN or infinity */
  I2SB_ERROR_CANCELLED = 7  /* a callback asked to stop */
} i2sb_status;

typedef struct i2sb_error {
  char message[512];
} i2sb_error;

I2SB_API const char* i2sb_version_string(void);

/* ---- schedule: arXiv 2302.05872, eq. 11, in float64 ------------------------------------------------------------ */

typedef struct i2sb_schedule {
  uint32_t struct_size;
  int32_t interval; /* N, even, 2 .. 1000000 */
  double beta_max;  /* > 0 */
  double t0, T;     /* ends of the network's time, before scaling by N */
} i2sb_schedule;

/* Each array holds `interval` values; NULL skips it. noise_levels[k] is the network's time input at step k. */
typedef struct i2sb_schedule_arrays {
  uint32_t struct_size;
  double *betas, *std_fwd, *std_bwd, *std_sb, *mu_x0, *mu_x1, *noise_levels;
} i2sb_schedule_arrays;

I2SB_API i2sb_status i2sb_schedule_compute(const i2sb_schedule* schedule, const i2sb_schedule_arrays* arrays,
                                           i2sb_error* error);

/* ---- plan: a sampler as a table --------------------------------------------------------------------------------- */

#define I2SB_ROW_COLUMNS 10 /* t p q a b c d e s r */

/* What the network says of x at step n: (x - x0) / std_fwd_n (eq. 12), or x0 itself. */
typedef enum i2sb_prediction { I2SB_PREDICTS_NOISE = 0, I2SB_PREDICTS_MEAN = 1 } i2sb_prediction;

/* Posterior sampling (eq. 4) in `nfe` network calls, 1 <= nfe <= interval - 1.
 * rows: [nfe][I2SB_ROW_COLUMNS]; steps: [nfe + 1], ascending (may be NULL). prediction: i2sb_prediction. ot_ode != 0:
 * without noise. */
I2SB_API i2sb_status i2sb_plan_posterior(const i2sb_schedule* schedule, int32_t prediction, int32_t nfe, int32_t ot_ode,
                                         float* rows, int32_t* steps, i2sb_error* error);

/* DBIM (arXiv 2405.15885) of order 1, 2 or 3; eta 0 .. 1 is the share of fresh noise, 0 for the orders 2 and 3.
 * given: [nfe + 1] steps, ascending from 0 to interval - 1, in place of the usual ones; NULL without. Its plans take
 * the rule I2SB_KNOWN_IS_X0 for masks. */
I2SB_API i2sb_status i2sb_plan_dbim(const i2sb_schedule* schedule, int32_t prediction, int32_t nfe, int32_t order,
                                    double eta, const int32_t* given, float* rows, int32_t* steps, i2sb_error* error);

/* I3SB (arXiv 2403.06069): as DBIM of order 1, but the last estimate of the clean image is the result. */
I2SB_API i2sb_status i2sb_plan_i3sb(const i2sb_schedule* schedule, int32_t prediction, int32_t nfe, double eta,
                                    float* rows, int32_t* steps, i2sb_error* error);

typedef enum i2sb_known { I2SB_KNOWN_IS_X0 = 0, I2SB_KNOWN_IS_RENEWED = 1 } i2sb_known;

typedef struct i2sb_plan {
  uint32_t struct_size;
  int32_t row_count;
  const float* rows; /* [row_count][I2SB_ROW_COLUMNS] */
  int32_t clip;      /* not 0: clamp x0 to [-1, 1] */
  int32_t known;     /* i2sb_known: what a mask does in a row */
} i2sb_plan;

/* ---- noise and tiles -------------------------------------------------------------------------------------------- */

/* Draws `first` .. `first + count - 1` of an image's standard normal noise; purpose 0 step, 1 hole, 2 known, 3 x1. */
I2SB_API i2sb_status i2sb_noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose,
                                float* out, i2sb_error* error);

/* Fills planes [C,H,W] in place where mask [H,W] is not 0, smoothly from what is known around. */
I2SB_API i2sb_status i2sb_fill_hole(int32_t channels, int32_t height, int32_t width, const float* mask, float* planes,
                                    i2sb_error* error);

/* Where the tiles of one axis begin. `*count` is the capacity of `origins` on entry, the number of tiles on return;
 * with origins NULL only the number is given. */
I2SB_API i2sb_status i2sb_tile_origins(int32_t size, int32_t tile, int32_t overlap, int32_t* origins, int32_t* count,
                                       i2sb_error* error);

/* ---- model files ------------------------------------------------------------------------------------------------ */

typedef struct i2sb_model i2sb_model; /* immutable; may be shared between threads */

typedef struct i2sb_tensor_view {
  uint32_t struct_size;
  const char* name;
  int32_t onnx_type; /* 1 float32, 10 float16, 16 bfloat16, 7 int64 ... as in ONNX */
  int32_t rank;
  const int64_t* dims;
  const void* data; /* little-endian; NULL when it lies in another file */
  size_t bytes;
} i2sb_tensor_view;

I2SB_API i2sb_status i2sb_model_open(const char* path, i2sb_model** model, i2sb_error* error);
I2SB_API void i2sb_model_free(i2sb_model* model);
/* The value of a metadata key, NULL if the model lacks it. Owned by the model. */
I2SB_API const char* i2sb_model_metadata(const i2sb_model* model, const char* key);
I2SB_API int32_t i2sb_model_metadata_count(const i2sb_model* model);
I2SB_API void i2sb_model_metadata_at(const i2sb_model* model, int32_t index, const char** key, const char** value);
I2SB_API int32_t i2sb_model_tensor_count(const i2sb_model* model);
I2SB_API i2sb_status i2sb_model_tensor_at(const i2sb_model* model, int32_t index, i2sb_tensor_view* view,
                                          i2sb_error* error);

/* ---- engines ---------------------------------------------------------------------------------------------------- */

struct i2sb_sample_params;

/* An inference engine, as a table of functions. One is used by one thread at a time, unless its maker says more. */
typedef struct i2sb_engine {
  uint32_t struct_size;
  void* self;
  /* out[B,Cout,H,W] = network(x[B,Cin,H,W], t[B]). Returns I2SB_OK or a status, with its sentence in `error`. */
  i2sb_status (*predict)(void* self, int32_t batch, int32_t in_channels, int32_t out_channels, int32_t height,
                         int32_t width, const float* x, const float* t, float* out, i2sb_error* error);
  void (*free)(void* self); /* may be NULL */
  /* NULL, or runs a whole plan where the engine computes; predict may then be NULL. x [B,C,H,W] begins as the first
   * state and ends as the result; params.start and params.out are not looked at. Both structs have been checked. */
  i2sb_status (*sample)(void* self, const i2sb_plan* plan, const struct i2sb_sample_params* params, float* x,
                        i2sb_error* error);
} i2sb_engine;

typedef struct i2sb_openvino_options {
  uint32_t struct_size;
  int32_t threads;       /* of all streams together; 0: one a core */
  int32_t streams;       /* network calls that run at once, 0 .. 256; 0: 1 */
  const char* precision; /* NULL or "auto", "fp32", "bf16" */
  const char* cache_dir; /* where compiled networks are kept; NULL: nowhere */
  const char* library;   /* libopenvino_c's path; NULL: I2SB_RT_OPENVINO, then the loader's own search */
} i2sb_openvino_options;

/* Fills `*engine`; the model must outlive it. Any number of threads may use it at once: `streams` of them compute, the
 * others wait. */
I2SB_API i2sb_status i2sb_openvino_engine(const i2sb_model* model, const i2sb_openvino_options* options,
                                          i2sb_engine* engine, i2sb_error* error);
/* What an engine of i2sb_openvino_engine runs: "fp32" or "bf16". */
I2SB_API const char* i2sb_openvino_precision(const i2sb_engine* engine);
/* The release of OpenVINO behind it. */
I2SB_API const char* i2sb_openvino_release(const i2sb_engine* engine);

/* ---- sampling: the loop ----------------------------------------------------------------------------------------- */

typedef enum i2sb_phase {
  I2SB_PHASE_NETWORK = 0,
  I2SB_PHASE_STEP = 1,
  I2SB_PHASE_PREPARE = 2,
  I2SB_PHASE_FINISH = 3
} i2sb_phase;

/* What the loop tells its observer, after each piece of work. */
typedef struct i2sb_event {
  int32_t phase; /* i2sb_phase */
  int32_t row, row_count;
  int32_t tile, tile_count; /* network calls done of this row's; 0 of 0 outside the network */
  int64_t begin_ns, end_ns; /* steady clock */
} i2sb_event;

/* Returns 0 to go on, anything else to stop with I2SB_ERROR_CANCELLED. */
typedef int32_t (*i2sb_observer)(void* user, const i2sb_event* event);

typedef struct i2sb_sample_params {
  uint32_t struct_size;
  int32_t batch, channels, height, width;
  int32_t cond_channels; /* of cond; 0 without */
  const float* x1;       /* [B,C,H,W]: the degraded images in [-1,1] */
  const float* start;    /* [B,C,H,W]: the state at the beginning; NULL: x1 */
  const float* cond;     /* [B,cond_channels,H,W]: shown to the network behind x; NULL without */
  const float* mask;     /* [B,1,H,W]: 1 = hole, 0 = known; NULL without */
  const uint64_t* seeds; /* [B]; NULL: all 0 */
  const float* draws;    /* [draw_count,B,C,H,W]: recorded noise in the order drawn; NULL: Philox */
  int32_t draw_count;
  float* out;             /* [B,C,H,W]; may be x1 */
  float* trajectory;      /* [B,rows,C,H,W], index 0 final; NULL: not kept */
  int32_t tile, overlap;  /* tile 0: the network sees the whole image */
  int32_t network_batch;  /* 0: the whole batch; else the exact batch of every network call, the last one padded */
  int32_t threads;        /* for all but the network; 0: one a core */
  i2sb_observer observer; /* NULL without */
  void* observer_user;
} i2sb_sample_params;

I2SB_API i2sb_status i2sb_sample(const i2sb_engine* engine, const i2sb_plan* plan, const i2sb_sample_params* params,
                                 i2sb_error* error);

/* ---- restoring: 8-bit image in, 8-bit image out ----------------------------------------------------------------- */

typedef struct i2sb_restore_params {
  uint32_t struct_size;
  int32_t width, height; /* of the image */
  int32_t channels;      /* of the image: those of the model */
  const uint8_t* image;  /* [H,W,C] */
  const uint8_t* mask;   /* [H,W]: 0 = known, anything else = hole; NULL without, and for a model that enlarges */
  uint8_t* out;          /* [H,W,C], each side `upscale` times the image's; may be image where that is 1 */
  uint64_t seed;
  const i2sb_plan* plan;
  int32_t tile;    /* -1: by the model, 0: whole, else the tile's side */
  int32_t overlap; /* -1: by the model */
  int32_t threads; /* 0: one a core */
  i2sb_observer observer;
  void* observer_user;
} i2sb_restore_params;

/* What a restore of this size would do: the result's size, the same padded, the tile's side (0 = whole) and the number
 * of tiles. */
typedef struct i2sb_layout {
  uint32_t struct_size;
  int32_t width, height;
  int32_t padded_width, padded_height;
  int32_t tile, overlap;
  int32_t tile_count;
} i2sb_layout;

I2SB_API i2sb_status i2sb_restore_layout(const i2sb_model* model, int32_t width, int32_t height, int32_t tile,
                                         int32_t overlap, i2sb_layout* layout, i2sb_error* error);

/* Pads, fills the hole, samples, crops, pastes the known pixels and rounds, as the model's metadata say. */
I2SB_API i2sb_status i2sb_restore(const i2sb_model* model, const i2sb_engine* engine, const i2sb_restore_params* params,
                                  i2sb_error* error);

#ifdef __cplusplus
}
#endif
#endif
