// Standard normal draws: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and
// Box-Muller, a block of 4 * kWidth elements at a time.
#pragma once

#include "vec.hpp"

namespace {

constexpr int kRounds = 10;

// What all draws of one image, plan row and purpose share.
struct Stream {
  U64 key0[kRounds], key1[kRounds];
  U64 row, purpose;
  U64 even, odd;  // the groups of the even and of the odd lanes, from the block's first
};

I2SB_INLINE Stream make_stream(uint64_t seed, uint32_t row, uint32_t purpose) {
  Stream s;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int i = 0; i < kRounds; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    s.key0[i] = U64{} + k0;
    s.key1[i] = U64{} + k1;
  }
  s.row = U64{} + row;
  s.purpose = U64{} + purpose;
  for (int i = 0; i < kWidth / 2; ++i) {
    s.even[i] = group_of_lane(2 * i);
    s.odd[i] = group_of_lane(2 * i + 1);
  }
  return s;
}

// Ten rounds on the counters (lo(group), hi(group), row, purpose). Words live in the low halves of 64-bit lanes, where
// the multiplication wants them; what gathers in the high halves is never looked at.
I2SB_INLINE void philox(const Stream& s, U64 group, U64 (&word)[4]) {
  const U64 m0 = U64{} + 0xD2511F53u, m1 = U64{} + 0xCD9E8D57u;
  U64 c0 = group, c1 = group >> 32, c2 = s.row, c3 = s.purpose;
  for (int i = 0; i < kRounds; ++i) {
    const U64 p0 = multiply_low(c0, m0), p1 = multiply_low(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ s.key0[i];
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ s.key1[i];
    c3 = p0;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// -2 ln u of u = v / 2^24, v odd and below 2^24. u = m / 2^n with m in [2/3, 4/3); minimax polynomial in m - 1.
I2SB_INLINE F32 minus_two_log(I32 v) {
  const I32 bits = (I32) __builtin_convertvector(v, F32);
  const I32 exponent = (bits - 0x3f2aaaab) >> 23;  // 0x3f2aaaab: 2/3
  const F32 f = (F32)(bits - (exponent << 23)) - 1.0f;
  const F32 n = __builtin_convertvector(24 - exponent, F32);
  F32 g = splat(-0x1.1fde86p-2f);
  g = g * f + 0x1.3b751ep-2f;
  g = g * f - 0x1.1e7792p-2f;
  g = g * f + 0x1.50224cp-2f;
  g = g * f - 0x1.99d83ap-2f;
  g = g * f + 0x1.00150cp-1f;
  g = g * f - 0x1.5554e6p-1f;
  g = g * f + 0x1.ffffd2p-1f;
  g = g * f - 2.0f;
  return n * 0x1.62e430p+0f + f * g;  // 2 ln 2
}

// Cosine and sine of 2 pi v / 2^24. The quadrant is taken off in integers; t, the rest, is exact, in quarters of a turn
// within [-1/2, 1/2]; minimax polynomials in t.
I2SB_INLINE void cos_sin(I32 v, F32& cosine, F32& sine) {
  const I32 quadrant = (v + (1 << 21)) >> 22;
  const F32 t = __builtin_convertvector(v - (quadrant << 22), F32) * 0x1p-22f;
  const F32 t2 = t * t;
  F32 c = splat(0x1.d9f7bcp-11f);
  c = c * t2 - 0x1.55c664p-6f;
  c = c * t2 + 0x1.03c1dep-2f;
  c = c * t2 - 0x1.3bd3ccp+0f;
  c = c * t2 + 1.0f;
  F32 s = splat(-0x1.2d9302p-8f);
  s = s * t2 + 0x1.465e92p-4f;
  s = s * t2 - 0x1.4abbbap-1f;
  s = s * t2 + 0x1.921fb6p+0f;
  s = s * t;
  const I32 swapped = -(quadrant & 1);
  cosine = (F32)((I32)select(swapped, s, c) ^ (((quadrant + 1) & 2) << 30));
  sine = (F32)((I32)select(swapped, c, s) ^ ((quadrant & 2) << 30));
}

// Elements 4 * group .. 4 * group + kBlock - 1 of the stream, in the order of memory.
I2SB_INLINE Four normals(const Stream& s, uint64_t group) {
  U64 even[4], odd[4];
  philox(s, s.even + group, even);
  philox(s, s.odd + group, odd);
  I32 v[4];  // the uniforms ((word >> 9) + 0.5) 2^-23, in units of 2^-24
  for (int i = 0; i < 4; ++i) v[i] = (I32)(((U32)((even[i] & 0xffffffffu) | (odd[i] << 32)) >> 8) | 1u);
  Four z;
  for (int i = 0; i < 4; i += 2) {
    const F32 radius = square_root(minus_two_log(v[i]));
    F32 cosine, sine;
    cos_sin(v[i + 1], cosine, sine);
    z.v[i] = radius * cosine;
    z.v[i + 1] = radius * sine;
  }
  return transpose(z);
}

}  // namespace
