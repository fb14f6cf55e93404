// Any metadata in a model file that is else in order: refused, or a model that restores or says why it does not. The
// input is text: lines of key=value change what a good model has, lines of a key alone take it away.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "contract.hpp"
#include "host.hpp"

namespace {

constexpr size_t HEAP = size_t{16} << 20;

tests::Metadata metadata_of(std::string_view text) {
  tests::Metadata metadata = tests::tiny_metadata();
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t equals = line.find('=');
    if (equals == line.npos)
      metadata.erase(std::string(line));
    else
      metadata[std::string(line.substr(0, equals))] = line.substr(equals + 1);
  }
  return metadata;
}

int32_t stop_soon(void* calls, const i2sb_event*) { return ++*static_cast<int*>(calls) > 12; }

void try_layouts(const i2sb_model* model) {
  for (const int width : {1, 8, 33, 1 << 20, INT32_MAX})
    for (const int tile : {-1, 0, 16, 1 << 10, INT32_MAX}) {
      i2sb_layout layout{};
      layout.struct_size = sizeof layout;
      if (FUZZED(i2sb_model_layout(model, width, 7, tile, -1, &layout)) != I2SB_OK) continue;
      CHECK(layout.padded_width >= layout.width && layout.padded_height >= layout.height && layout.tile_count >= 1);
      CHECK(layout.tile > 0 || (layout.tile_count == 1 && layout.overlap == 0 && tile <= 0));
      CHECK(tile <= 0 || layout.tile == tile);
    }
}

void try_plan(const i2sb_model* model) {
  i2sb_plan_params params;
  i2sb_plan_params_init(&params, sizeof params);
  params.model = model;
  i2sb_plan plan{};
  plan.struct_size = sizeof plan;
  if (FUZZED(i2sb_plan_make(&params, nullptr, nullptr, &plan)) != I2SB_OK) return;
  CHECK(plan.row_count >= 1);
  if (plan.row_count > 1000) return;
  std::vector<float> rows(static_cast<size_t>(plan.row_count) * I2SB_ROW_COLUMNS);
  std::vector<int32_t> steps(static_cast<size_t>(plan.row_count) + 1);
  CHECK(FUZZED(i2sb_plan_make(&params, rows.data(), steps.data(), &plan)) == I2SB_OK);
  CHECK(steps.front() == 0 && plan.rows == rows.data());
}

void try_restore(const i2sb_model* model, int tile) {
  const int channels = std::stoi(i2sb_model_metadata(model, "i2sb.channels"));
  const int upscale = std::stoi(i2sb_model_metadata(model, "i2sb.upscale"));
  if (channels > 8 || upscale > 4) return;
  const int width = 9, height = 6;
  std::vector<uint8_t> from(width * height * channels, 77), hole(width * height, 0);
  std::vector<uint8_t> to(from.size() * upscale * upscale, 42), untouched = to;
  hole[20] = 1;
  const i2sb_image image = i2sb_rt::image(from.data(), width, height, channels);
  const i2sb_image mask = i2sb_rt::image(hole.data(), width, height, 1);
  const i2sb_image out = i2sb_rt::image(to.data(), width * upscale, height * upscale, channels);
  const i2sb_engine engine = tests::engine_of(tests::mix);
  i2sb_session_params session_params = i2sb_rt::session_params();
  session_params.engine = &engine;
  session_params.threads = 1;
  i2sb_session* session = nullptr;
  if (FUZZED(i2sb_session_create(model, &session_params, &session)) != I2SB_OK) return;
  int calls = 0;
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.image = &image;
  params.mask = upscale == 1 ? &mask : nullptr;
  params.out = &out;
  params.tile = tile;
  params.progress = stop_soon;
  params.progress_user = &calls;
  if (FUZZED(i2sb_restore(session, &params)) != I2SB_OK) CHECK(to == untouched);
  i2sb_session_free(session);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes = tests::integer_field(1, 8) + tests::graph_bytes();
  for (const auto& [key, value] : metadata_of({reinterpret_cast<const char*>(data), size}))
    bytes += tests::metadata_bytes("i2sb." + key, value);
  const fuzz::SmallHeap heap(HEAP);
  i2sb_model* model = nullptr;
  const i2sb_status status = FUZZED(tests::load(bytes, &model));
  CHECK(status == I2SB_OK || status == I2SB_ERROR_MODEL);
  if (!model) return 0;
  try_layouts(model);
  try_plan(model);
  for (const int tile : {-1, 0}) try_restore(model, tile);
  i2sb_model_free(model);
  return 0;
}
