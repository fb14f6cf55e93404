// Any bytes as a model file: refused, or a model whose every byte can be read.
#include <algorithm>
#include <string>

#include "contract.hpp"
#include "i2sb_rt.hpp"

namespace {

constexpr size_t HEAP = size_t{64} << 20;

struct Pieces {
  const uint8_t* data;
  size_t rest, most;

  static int64_t read(void* self, void* buffer, size_t size) {
    auto* pieces = static_cast<Pieces*>(self);
    const size_t count = std::min({size, pieces->rest, pieces->most});
    if (count > 0) std::memcpy(buffer, pieces->data, count);
    pieces->data += count;
    pieces->rest -= count;
    return static_cast<int64_t>(count);
  }
};

// Reads all there is, so that a pointer that goes astray is seen.
uint64_t read_all(const i2sb_model* model) {
  uint64_t sum = 0;
  const int32_t entries = i2sb_model_metadata_count(model);
  CHECK(entries > 0);
  for (int32_t i = 0; i < entries; ++i) {
    const char *key = nullptr, *value = nullptr;
    i2sb_model_metadata_at(model, i, &key, &value);
    CHECK(fuzz::is_utf8(key) && fuzz::is_utf8(value));
    CHECK(i2sb_model_metadata(model, key) == value);
    sum += std::strlen(key) + std::strlen(value);
  }
  for (int32_t i = 0; i < i2sb_model_tensor_count(model); ++i) {
    i2sb_tensor tensor{};
    tensor.struct_size = sizeof tensor;
    CHECK(i2sb_model_tensor_at(model, i, &tensor) == I2SB_OK);
    CHECK(fuzz::is_utf8(tensor.name) && tensor.rank >= 0 && tensor.rank <= 16);
    for (int32_t axis = 0; axis < tensor.rank; ++axis) sum += static_cast<uint64_t>(tensor.dims[axis]);
    const auto* bytes = static_cast<const uint8_t*>(tensor.data);
    for (size_t k = 0; k < tensor.data_size; ++k) sum += bytes[k];
  }
  return sum;
}

i2sb_status load(i2sb_model_params& params, uint64_t& sum) {
  i2sb_model* model = nullptr;
  const i2sb_status status = FUZZED(i2sb_model_load(&params, &model));
  CHECK((status == I2SB_OK) == (model != nullptr));
  if (model) sum = read_all(model);
  i2sb_model_free(model);
  return status;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::SmallHeap heap(HEAP);
  uint64_t whole_sum = 0, pieces_sum = 0;
  i2sb_model_params params = i2sb_rt::model_params();
  params.data = size > 0 ? data : reinterpret_cast<const uint8_t*>("");
  params.data_size = size;
  const i2sb_status whole = load(params, whole_sum);
  Pieces pieces{data, size, size / 3 + 1};
  params = i2sb_rt::model_params();
  params.read = Pieces::read;
  params.read_user = &pieces;
  const i2sb_status read = load(params, pieces_sum);
  CHECK(whole == I2SB_OK || whole == I2SB_ERROR_MODEL || whole == I2SB_ERROR_MEMORY);
  CHECK(read == whole || read == I2SB_ERROR_MEMORY || whole == I2SB_ERROR_MEMORY);
  CHECK(read != I2SB_OK || whole != I2SB_OK || pieces_sum == whole_sum);
  return 0;
}
