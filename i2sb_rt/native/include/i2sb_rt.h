/* i2sb_rt: restoring images with diffusion bridges, from C. docs/embedding.md shows the way in one page.
 *
 * Rules that hold for every function: no exception crosses it, nothing is printed, nothing aborts. One that can fail
 * returns an i2sb_status, leaves its outputs untouched where that is not I2SB_OK, and keeps a sentence for
 * i2sb_last_error. Structs that may grow begin with their size, which an init function sets with the defaults, and else
 * the caller, to sizeof; fields are only ever appended, and those named reserved are 0. Text is UTF-8. Freeing NULL is
 * legal. What is passed in is borrowed for the time of the call, unless a line says longer; an allocator's or a log's
 * user as long as what was made with it, and a log calls no function here. What is passed out is the caller's. The
 * default floating-point environment (to nearest) holds in each function and what it calls, the caller's behind it. */
#ifndef I2SB_RT_H
#define I2SB_RT_H
#include <stddef.h>
#include <stdint.h>
#define I2SB_ABI_VERSION 1 /* of this header; grows when a program must be built anew */
#define I2SB_STATUS __attribute__((warn_unused_result)) i2sb_status
#pragma GCC visibility push(default)
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
  I2SB_ERROR_CANCELLED = 7  /* a callback or i2sb_session_cancel stopped it */
} i2sb_status;
uint32_t i2sb_abi_version(void); /* of the library: must be I2SB_ABI_VERSION */
const char* i2sb_version_string(void);
/* A sentence about this thread's last failure, until its next one; "" before the first. Never NULL. */
const char* i2sb_last_error(void);
i2sb_status i2sb_fail(i2sb_status status, const char* sentence); /* for callbacks: keeps it, and returns `status` */

/* Of an object and the arrays of its work, an engine's own apart; by any thread that uses it. NULL: none is left. */
typedef struct i2sb_allocator {
  void* (*allocate)(void* user, size_t size, size_t alignment);
  void (*release)(void* user, void* memory, size_t size);
  void* user;
} i2sb_allocator;
typedef void (*i2sb_log)(void* user, const char* sentence); /* what was loaded, chosen, compiled; by any thread */

/* ---- model files: immutable once loaded, and shared between threads at will ------------------------------------- */
typedef struct i2sb_model i2sb_model;
typedef struct i2sb_model_params {
  uint32_t struct_size;
  /* One of three: a file; its bytes; what writes at most `size` more of them, and returns how many, 0 at the end. */
  const char* path;
  const void* data;
  size_t data_size;
  int64_t (*read)(void* user, void* buffer, size_t size);
  void* read_user;
  const i2sb_allocator* allocator; /* copied; NULL: the C++ heap */
  i2sb_log log;                    /* may be NULL */
  void* log_user;
} i2sb_model_params;
void i2sb_model_params_init(i2sb_model_params* params, size_t struct_size);
I2SB_STATUS i2sb_model_load(const i2sb_model_params* params, i2sb_model** model);
void i2sb_model_free(i2sb_model* model);
/* The value of a key such as "i2sb.name", NULL if the model lacks it. Owned by the model. */
const char* i2sb_model_metadata(const i2sb_model* model, const char* key);
int32_t i2sb_model_metadata_count(const i2sb_model* model);
void i2sb_model_metadata_at(const i2sb_model* model, int32_t index, const char** key, const char** value);

typedef struct i2sb_tensor {
  uint32_t struct_size;
  int32_t onnx_type, rank; /* type: 1 float32, 10 float16, 16 bfloat16, 7 int64 ... as in ONNX */
  const char* name;        /* this and all below: owned by the model */
  const int64_t* dims;
  const void* data; /* little-endian, at any address: memcpy it; NULL when in another file or no raw_data */
  size_t data_size;
} i2sb_tensor;
int32_t i2sb_model_tensor_count(const i2sb_model* model);
I2SB_STATUS i2sb_model_tensor_at(const i2sb_model* model, int32_t index, i2sb_tensor* tensor);

/* ---- plans: a sampler as a table, one row a network call; docs/architecture.md says what a row does ------------- */
#define I2SB_ROW_COLUMNS 10 /* t p q a b c d e s r */
typedef struct i2sb_plan {
  uint32_t struct_size;
  int32_t row_count;
  const float* rows; /* [row_count][I2SB_ROW_COLUMNS]; lives as long as the plan is used */
  int32_t clip;      /* not 0: clamp x0 to [-1, 1] */
  int32_t known;     /* outside the hole of a mask: 0: x0 = x1, 1: x' = x1 + r z */
} i2sb_plan;
/* arXiv 2302.05872, eq. 11, in float64. */
typedef struct i2sb_schedule {
  uint32_t struct_size;
  int32_t interval;       /* N, even, 2 .. 1000000 */
  double beta_max, t0, T; /* beta_max > 0; the ends of the network's time, before scaling by N */
} i2sb_schedule;
/* Seven arrays of `interval` values each: betas, std_fwd, std_bwd, std_sb, mu_x0, mu_x1, and the network's times. */
I2SB_STATUS i2sb_schedule_compute(const i2sb_schedule* schedule, double* arrays);

typedef struct i2sb_plan_params {
  uint32_t struct_size;
  int32_t nfe;                   /* network calls, 1 .. interval - 1; 0: the model's own */
  const i2sb_model* model;       /* says what is not given below; NULL: what the sampler needs must be given */
  const i2sb_schedule* schedule; /* NULL: the model's */
  const char* sampler;           /* "sde", "ode", "dbim1", "dbim2", "dbim3", "i3sb", "dsb"; NULL: the model's own */
  const char* prediction; /* "noise", "mean", of dsb "drift", "noise", "mean", "residual"; NULL: model's, first */
  double eta;             /* share of fresh noise, 0 .. 1, of dbim1 (0) and i3sb (0.6); negative: those */
  const int32_t* steps;   /* dbim: [nfe + 1], ascending from 0 to interval - 1; NULL: evenly spaced */
  int32_t clip;           /* -1: the model's, else 0 */
  const double* gammas;   /* dsb: half the variance of each step, from the data on, > 0; NULL: the model's */
  const char* direction;  /* dsb: "forward", from the data, or "backward"; NULL: the model's */
  int32_t gamma_count, reserved;
} i2sb_plan_params;
void i2sb_plan_params_init(i2sb_plan_params* params, size_t struct_size);
/* Fills rows [nfe][I2SB_ROW_COLUMNS], steps [nfe + 1] unless NULL, and the plan. rows NULL: only plan->row_count. */
I2SB_STATUS i2sb_plan_make(const i2sb_plan_params* params, float* rows, int32_t* steps, i2sb_plan* plan);

/* ---- engines: what runs the network ----------------------------------------------------------------------------- */
struct i2sb_sample_params;
/* out [batch,out_channels,height,width] = network(x [batch,in_channels,height,width], t [batch]). */
typedef struct i2sb_network_call {
  uint32_t struct_size;
  int32_t batch, in_channels, out_channels, height, width;
  const float *x, *t;
  float* out;
} i2sb_network_call;
/* A table of functions, this library's or the host's. It is called by one thread at a time for each session. */
typedef struct i2sb_engine {
  uint32_t struct_size;
  void* self;
  i2sb_status (*predict)(void* self, const i2sb_network_call* call); /* I2SB_OK, or what i2sb_fail returns */
  /* NULL, or runs a whole plan where the engine computes, and predict may be NULL. x [B,C,H,W] begins as the first
   * state and ends as the result; params->start and params->out are not looked at. Both structs have been checked. */
  i2sb_status (*sample)(void* self, const i2sb_plan* plan, const struct i2sb_sample_params* params, float* x);
  void (*free)(void* self); /* may be NULL */
} i2sb_engine;
/* Calls engine->free and empties the table: twice does no harm. */
void i2sb_engine_free(i2sb_engine* engine);

typedef struct i2sb_openvino_options {
  uint32_t struct_size;
  int32_t threads;       /* of all streams together; 0: one a core that the process may use */
  int32_t streams;       /* network calls that run at once, 0 .. 256; 0: 1 */
  const char* precision; /* NULL or "auto" (points in fp32), "fp32", "bf16" */
  const char* cache_dir; /* where compiled networks are kept; NULL: nowhere */
  const char* library;   /* libopenvino_c's path; NULL: I2SB_RT_OPENVINO, the Python package, the loader's search */
  i2sb_log log;          /* may be NULL */
  void* log_user;
} i2sb_openvino_options;
void i2sb_openvino_options_init(i2sb_openvino_options* options, size_t struct_size);
/* Fills *engine, whose struct_size is set. The model must outlive it. Any number of sessions and threads may share it
 * and its compiled networks: `streams` of them compute at once, the others wait. options: may be NULL. */
I2SB_STATUS i2sb_openvino_engine(const i2sb_model* model, const i2sb_openvino_options* options, i2sb_engine* engine);
const char* i2sb_openvino_precision(const i2sb_engine* engine); /* "fp32" or "bf16"; of any other kind of engine "" */
const char* i2sb_openvino_release(const i2sb_engine* engine);

/* ---- sessions: one a thread ------------------------------------------------------------------------------------- */
typedef struct i2sb_session i2sb_session;
typedef struct i2sb_session_params {
  uint32_t struct_size;
  int32_t threads;                       /* for all but the network; 0: as above */
  const i2sb_engine* engine;             /* copied, must outlive the session; NULL: one of its own, OpenVINO's */
  const i2sb_openvino_options* openvino; /* of that one; may be NULL */
  const i2sb_allocator* allocator;       /* copied; NULL: the C++ heap */
  i2sb_log log;                          /* may be NULL */
  void* log_user;
} i2sb_session_params;
void i2sb_session_params_init(i2sb_session_params* params, size_t struct_size);
/* The model must outlive it; NULL with an engine: then there is i2sb_sample alone. params: may be NULL. */
I2SB_STATUS i2sb_session_create(const i2sb_model* model, const i2sb_session_params* params, i2sb_session** session);
void i2sb_session_free(i2sb_session* session);
/* From any thread or signal handler: its work ends, I2SB_ERROR_CANCELLED, after the network call; it stays usable. */
void i2sb_session_cancel(i2sb_session* session);

typedef enum i2sb_phase { I2SB_PHASE_NETWORK, I2SB_PHASE_STEP, I2SB_PHASE_PREPARE, I2SB_PHASE_FINISH } i2sb_phase;
typedef struct i2sb_event {
  int32_t phase; /* i2sb_phase: the piece of work that has just ended */
  int32_t row, row_count;
  int32_t tile, tile_count; /* network calls done of this row's; 0 of 0 outside the network */
  int64_t begin_ns, end_ns; /* steady clock */
} i2sb_event;
/* In the session's thread. Returns 0 to go on, else I2SB_ERROR_CANCELLED ends the work, unless it has just finished. */
typedef int32_t (*i2sb_progress)(void* user, const i2sb_event* event);

/* ---- restoring: image in, image out ----------------------------------------------------------------------------- */
typedef enum i2sb_pixel { I2SB_U8 = 0, I2SB_F32 = 1 } i2sb_pixel; /* 0 .. 255, 0 .. 1 */
/* Interleaved pixels. channels: 1 (grey), 3 (RGB) or 4 (RGB and one that is kept as it is); of a mask 1. */
typedef struct i2sb_image {
  uint32_t struct_size;
  int32_t width, height, channels, type; /* i2sb_pixel */
  void* data;                            /* the upper left pixel; an image that is only read is not written to */
  ptrdiff_t stride;                      /* bytes from a row to the one below it, may be negative; 0: without gaps */
} i2sb_image;
/* Of a restore: the result's size, also padded, the tile's side (0: whole) and the number of tiles. In: tile -1 by the
 * model, 0 the whole image, else the side; overlap -1 by the model. */
typedef struct i2sb_layout {
  uint32_t struct_size;
  int32_t width, height, padded_width, padded_height;
  int32_t tile, overlap, tile_count;
} i2sb_layout;
I2SB_STATUS i2sb_model_layout(const i2sb_model* model, int32_t width, int32_t height, int32_t tile, int32_t overlap,
                              i2sb_layout* layout);

typedef struct i2sb_restore_params {
  uint32_t struct_size;
  int32_t nfe; /* nfe, sampler and eta as in i2sb_plan_params */
  const char* sampler;
  double eta;
  const i2sb_plan* plan; /* in place of the three; NULL: by them */
  const i2sb_image* image;
  const i2sb_image* mask; /* of the image's size: 0 known, anything else hole; NULL without */
  const i2sb_image* out;  /* of the layout's size, image's channels and type; may be image where the sizes are one */
  uint64_t seed;
  int32_t tile, overlap;  /* as in i2sb_model_layout */
  i2sb_progress progress; /* may be NULL */
  void* progress_user;
  int32_t ensemble, reserved; /* 2, 4, 8: the mean of it as it is, mirrored, upside down, turned; 0, 1: as it is */
} i2sb_restore_params;
void i2sb_restore_params_init(i2sb_restore_params* params, size_t struct_size);
I2SB_STATUS i2sb_restore(i2sb_session* session, const i2sb_restore_params* params);

/* ---- below images: the loop, and its parts ---------------------------------------------------------------------- */
typedef struct i2sb_sample_params {
  uint32_t struct_size;
  int32_t batch, channels, height, width, cond_channels;
  const float* x1;       /* [B,C,H,W]: the degraded images in [-1,1] */
  const float* start;    /* [B,C,H,W]: the state at the beginning; NULL: x1 */
  const float* cond;     /* [B,cond_channels,H,W]: shown to the network behind x; NULL and 0 without */
  const float* mask;     /* [B,1,H,W]: 1 = hole, 0 = known; NULL without */
  const uint64_t* seeds; /* [B]; NULL: all 0 */
  const float* draws;    /* [draw_count,B,C,H,W]: recorded noise in the order drawn; NULL: Philox */
  int32_t draw_count;
  int32_t network_batch;  /* 0: the whole batch; else the exact batch of every network call, the last one padded */
  float* out;             /* [B,C,H,W]; may be x1 */
  float* trajectory;      /* [B,rows,C,H,W], index 0 final; NULL: not kept */
  int32_t tile, overlap;  /* tile 0: the network sees the whole image */
  i2sb_progress progress; /* may be NULL */
  void* progress_user;
  int32_t threads, reserved; /* threads: set by the library, for engines that run whole plans */
} i2sb_sample_params;
void i2sb_sample_params_init(i2sb_sample_params* params, size_t struct_size);
I2SB_STATUS i2sb_sample(i2sb_session* session, const i2sb_plan* plan, const i2sb_sample_params* params);

/* Draws `first` .. `first + count - 1` of an image's standard normal noise; purpose 0 step, 1 hole, 2 known, 3 x1. */
I2SB_STATUS i2sb_noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out);
/* Fills planes [C,H,W] in place where mask [H,W] is not 0, smoothly from what is known around. */
I2SB_STATUS i2sb_fill_hole(int32_t channels, int32_t height, int32_t width, const float* mask, float* planes);
/* Where the tiles of one axis begin. *count: on entry the room in origins, which may be NULL; then how many. */
I2SB_STATUS i2sb_tile_origins(int32_t size, int32_t tile, int32_t overlap, int32_t* origins, int32_t* count);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop
#endif
