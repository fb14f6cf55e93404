/* The CPU kernels: plain pointers in, plain pointers out, no allocation kept, no exception, no global.
 *
 * Every kernel has a twin in Python (kernels/i2sb_kernels/<op>/reference.py) that is the truth. All instruction sets
 * compute the same bits: the code is one template over the vector width, compiled without contraction to FMA. */
#ifndef I2SB_KERNELS_H
#define I2SB_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The columns of a plan row, in the order of the row (float32 each). */
enum {
  I2SB_COL_T, /* the network's time input */
  I2SB_COL_P, /* x0 = p x + q o */
  I2SB_COL_Q,
  I2SB_COL_A, /* x' = a x + b x0 + c x1 + d h1 + e h2 + s z */
  I2SB_COL_B,
  I2SB_COL_C,
  I2SB_COL_D,
  I2SB_COL_E,
  I2SB_COL_S,
  I2SB_COL_R, /* known region: x' = x1 + r z' */
  I2SB_PLAN_COLUMNS
};

/* What a mask does in a step. */
enum {
  I2SB_KNOWN_X0 = 0,   /* x0 = x1 outside the hole, before the update */
  I2SB_KNOWN_RENEW = 1 /* x' = x1 + r z' outside the hole, after the update */
};

/* The purposes of noise: the fourth counter word of Philox. */
enum { I2SB_NOISE_STEP = 0, I2SB_NOISE_HOLE = 1, I2SB_NOISE_KNOWN = 2, I2SB_NOISE_X1 = 3 };

/* The instruction sets that the kernels know, slow to fast. */
enum { I2SB_ISA_AUTO = -1, I2SB_ISA_SCALAR = 0, I2SB_ISA_AVX2 = 1, I2SB_ISA_AVX512 = 2 };

/* The fastest instruction set that this CPU and this build both have. */
int32_t i2sb_isa_best(void);

/* One step of the bridge on a batch of images, in one pass over memory.
 *
 * Arrays are contiguous float32 in C order; an array whose column is zero may be NULL and is not read.
 * z and z_known are recorded draws used in place of Philox noise. */
typedef struct i2sb_bridge_step_args {
  int64_t batch;         /* B */
  int64_t channels;      /* C */
  int64_t pixels;        /* H * W */
  const float* row;      /* [I2SB_PLAN_COLUMNS] */
  uint32_t row_index;    /* the plan row, from 0: third counter word of the noise */
  int32_t clip;          /* not 0: clamp x0 to [-1, 1] */
  int32_t known;         /* I2SB_KNOWN_*; without a mask not used */
  float* x;              /* [B, C, H*W]: the state, read and overwritten by x' */
  const float* o;        /* [B, C, H*W]: what the network said of x */
  const float* x1;       /* [B, C, H*W]: the degraded image; read if c != 0 or there is a mask */
  const float* mask;     /* [B, H*W] or NULL: 0 = known, anything else = hole */
  const float* h1;       /* [B, C, H*W]: x0 of the row before; read if d != 0 */
  const float* h2;       /* [B, C, H*W]: x0 of two rows before; read if e != 0 */
  float* x0;             /* [B, C, H*W] or NULL: where this row's x0 is kept; may be h2 */
  const float* z;        /* [B, C, H*W] or NULL */
  const float* z_known;  /* [B, C, H*W] or NULL */
  const uint64_t* seeds; /* [B]; read if noise is made here */
  int32_t threads;       /* at least 1; the result does not depend on it */
  int32_t isa;           /* I2SB_ISA_*; one that is not there falls to the best below it */
} i2sb_bridge_step_args;

void i2sb_bridge_step(const i2sb_bridge_step_args* args);

/* Standard normal draws: elements first .. first + count - 1 of an image's noise (Philox4x32-10, key = seed,
 * counter = (element / 4 as two words, row, purpose), Box-Muller). */
void i2sb_noise_fill(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out,
                     int32_t threads, int32_t isa);

#ifdef __cplusplus
}
#endif
#endif
