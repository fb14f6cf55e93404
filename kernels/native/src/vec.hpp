// Vectors of one width, with the few operations that the kernels need of them.
//
// Everything here stands in an anonymous namespace, and no standard template is used: these files are compiled once
// an instruction set, and a shared inline function could let the linker choose AVX code for the plain build.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#ifndef I2SB_WIDTH
#error "I2SB_WIDTH (4, 8 or 16 floats a vector) is set by CMakeLists.txt, beside the instruction set"
#endif
#define I2SB_INLINE static inline __attribute__((always_inline))

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "64-bit lanes are taken apart as low half, high half");
static_assert(FLT_EVAL_METHOD == 0, "the same bits everywhere need plain float arithmetic");

namespace {

constexpr int kWidth = I2SB_WIDTH;
constexpr int kBlock = 4 * kWidth;  // elements made at once: four vectors, one Philox group a lane

typedef float F32 __attribute__((vector_size(4 * I2SB_WIDTH)));
typedef int32_t I32 __attribute__((vector_size(4 * I2SB_WIDTH)));
typedef uint32_t U32 __attribute__((vector_size(4 * I2SB_WIDTH)));
typedef uint64_t U64 __attribute__((vector_size(4 * I2SB_WIDTH)));

I2SB_INLINE F32 load(const float* from) {
  F32 v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

I2SB_INLINE void store(float* to, F32 v) { __builtin_memcpy(to, &v, sizeof v); }

// The four vectors of a block.
struct Four {
  F32 v[4];
};

I2SB_INLINE Four load_four(const float* from) {
  Four four;
  for (int k = 0; k < 4; ++k) four.v[k] = load(from + k * kWidth);
  return four;
}

I2SB_INLINE void store_four(float* to, const Four& four) {
  for (int k = 0; k < 4; ++k) store(to + k * kWidth, four.v[k]);
}

I2SB_INLINE F32 splat(float v) { return F32{} + v; }

// Where mask is all ones, a; where it is zero, b.
I2SB_INLINE F32 select(I32 mask, F32 a, F32 b) { return (F32)(((I32)a & mask) | ((I32)b & ~mask)); }

I2SB_INLINE bool any(I32 mask) {
  const U64 words = (U64)mask;
  uint64_t joined = 0;
  for (int i = 0; i < kWidth / 2; ++i) joined |= words[i];
  return joined != 0;
}

// The products of the low halves of 64-bit lanes; the high halves are not looked at.
I2SB_INLINE U64 multiply_low(U64 a, U64 b) {
#if I2SB_WIDTH == 16 && defined(__AVX512F__)
  return (U64)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif I2SB_WIDTH == 8 && defined(__AVX2__)
  return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif I2SB_WIDTH == 4 && defined(__SSE2__)
  return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

I2SB_INLINE F32 square_root(F32 v) {
#if I2SB_WIDTH == 16 && defined(__AVX512F__)
  return (F32)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif I2SB_WIDTH == 8 && defined(__AVX2__)
  return (F32)_mm256_sqrt_ps((__m256)v);
#elif I2SB_WIDTH == 4 && defined(__SSE2__)
  return (F32)_mm_sqrt_ps((__m128)v);
#else
  for (int i = 0; i < kWidth; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

// Index lists of the unpack instructions, which work inside 128-bit quarters.
#if I2SB_WIDTH == 16
#define I2SB_LOW_SINGLES 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define I2SB_HIGH_SINGLES 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define I2SB_LOW_PAIRS 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define I2SB_HIGH_PAIRS 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#elif I2SB_WIDTH == 8
#define I2SB_LOW_SINGLES 0, 8, 1, 9, 4, 12, 5, 13
#define I2SB_HIGH_SINGLES 2, 10, 3, 11, 6, 14, 7, 15
#define I2SB_LOW_PAIRS 0, 1, 8, 9, 4, 5, 12, 13
#define I2SB_HIGH_PAIRS 2, 3, 10, 11, 6, 7, 14, 15
#else
#define I2SB_LOW_SINGLES 0, 4, 1, 5
#define I2SB_HIGH_SINGLES 2, 6, 3, 7
#define I2SB_LOW_PAIRS 0, 1, 4, 5
#define I2SB_HIGH_PAIRS 2, 3, 6, 7
#endif

// Lane p of a vector stands for group group_of_lane(p) of a block, so that `transpose` needs no step across quarters.
constexpr uint64_t group_of_lane(int p) { return static_cast<uint64_t>((p % 4) * (kWidth / 4) + p / 4); }

// One vector an element of the groups becomes one vector after the other in the order of memory.
I2SB_INLINE Four transpose(const Four& from) {
  const F32 low01 = __builtin_shufflevector(from.v[0], from.v[1], I2SB_LOW_SINGLES);
  const F32 high01 = __builtin_shufflevector(from.v[0], from.v[1], I2SB_HIGH_SINGLES);
  const F32 low23 = __builtin_shufflevector(from.v[2], from.v[3], I2SB_LOW_SINGLES);
  const F32 high23 = __builtin_shufflevector(from.v[2], from.v[3], I2SB_HIGH_SINGLES);
  return {{__builtin_shufflevector(low01, low23, I2SB_LOW_PAIRS),
           __builtin_shufflevector(low01, low23, I2SB_HIGH_PAIRS),
           __builtin_shufflevector(high01, high23, I2SB_LOW_PAIRS),
           __builtin_shufflevector(high01, high23, I2SB_HIGH_PAIRS)}};
}

}  // namespace
