// The C interface: checks what the CPU can do, cuts the work into pieces, and spreads the pieces over threads.
#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "kernels.hpp"

namespace {

constexpr int64_t kPiece = int64_t{1} << 16;  // elements a piece: a multiple of every block, so of every noise group

// Slow to fast, in the order of I2SB_ISA_*.
struct Ops {
  i2sb::BridgeStepRange bridge_step;
  i2sb::NoiseRange noise;
};
constexpr Ops kOps[] = {
    {i2sb::scalar::bridge_step, i2sb::scalar::noise},
#ifdef I2SB_X86
    {i2sb::avx2::bridge_step, i2sb::avx2::noise},
    {i2sb::avx512::bridge_step, i2sb::avx512::noise},
#endif
};

const Ops& ops_of(int32_t isa) {
  const int32_t best = i2sb_isa_best();
  return kOps[isa < 0 || isa > best ? best : isa];
}

// Calls body(0) .. body(pieces - 1), each once, on this thread and up to threads - 1 more.
template <class Body>
void for_pieces(int64_t pieces, int32_t threads, const Body& body) noexcept {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next.fetch_add(1); i < pieces; i = next.fetch_add(1)) body(i);
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < std::min<int64_t>(threads, pieces); ++i) others.emplace_back(work);
  } catch (const std::exception&) {
    // No further thread is to be had: those that run do all the work.
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace

int32_t i2sb_isa_best(void) {
#ifdef I2SB_X86
  __builtin_cpu_init();  // asks the operating system too whether it keeps the wide registers
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw")) {
    return I2SB_ISA_AVX512;
  }
  if (__builtin_cpu_supports("avx2")) return I2SB_ISA_AVX2;
#endif
  return I2SB_ISA_SCALAR;
}

void i2sb_bridge_step(const i2sb_bridge_step_args* args) {
  const int64_t size = args->channels * args->pixels;
  if (size <= 0 || args->batch <= 0) return;
  const i2sb::BridgeStepRange step = ops_of(args->isa).bridge_step;
  const int64_t pieces = (size + kPiece - 1) / kPiece;         // of an image
  const int64_t images = std::max<int64_t>(1, kPiece / size);  // small ones, taken together
  const int64_t runs = (args->batch + images - 1) / images;
  for_pieces(runs * pieces, args->threads, [=](int64_t i) {
    const int64_t first = (i % pieces) * kPiece, from = (i / pieces) * images;
    for (int64_t image = from; image < std::min(from + images, args->batch); ++image) {
      step(*args, image, first, std::min(kPiece, size - first));
    }
  });
}

void i2sb_noise_fill(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out,
                     int32_t threads, int32_t isa) {
  const i2sb::NoiseRange noise = ops_of(isa).noise;
  constexpr uint64_t piece = kPiece;
  for_pieces(static_cast<int64_t>(count / piece + (count % piece != 0)), threads, [=](int64_t i) {
    const uint64_t from = static_cast<uint64_t>(i) * piece;
    noise(seed, first + from, std::min(piece, count - from), row, purpose, out + from);
  });
}
