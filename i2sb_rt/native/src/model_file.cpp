#include "model_file.hpp"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>

#include "failure.hpp"

namespace i2sb {
namespace {

// The few fields of onnx.proto that are read, by number.
enum : uint32_t { MODEL_GRAPH = 7, MODEL_METADATA = 14, ENTRY_KEY = 1, ENTRY_VALUE = 2, GRAPH_INITIALIZER = 5 };
enum : uint32_t { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_LOCATION = 14 };
enum : uint32_t { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

// Walks the fields of one protobuf message without ever leaving its bytes.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // The next field; false at the end. `number` is set for a varint, `bytes` for a length-delimited field.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = static_cast<uint32_t>(key >> 3);
    bytes = {};
    number = 0;
    packed_ = (key & 7) == WIRE_BYTES;
    switch (key & 7) {
      case WIRE_VARINT:
        number = varint();
        break;
      case WIRE_64:
        take(8);
        break;
      case WIRE_BYTES:
        bytes = take(varint());
        break;
      case WIRE_32:
        take(4);
        break;
      default:
        fail(I2SB_ERROR_MODEL, "it holds a field of a kind that ONNX files never have");
    }
    return true;
  }

  // A repeated integer comes one a field, or packed in one.
  void append_integers(std::vector<int64_t>& to) const {
    if (!packed_) to.push_back(static_cast<int64_t>(number));
    for (Message packed(bytes); !packed.rest_.empty();) to.push_back(static_cast<int64_t>(packed.varint()));
  }

  uint32_t field = 0;
  uint64_t number = 0;
  std::string_view bytes;

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    fail(I2SB_ERROR_MODEL, "it holds a number without an end");
  }

  std::string_view take(uint64_t count) {
    if (count > rest_.size()) fail(I2SB_ERROR_MODEL, "it ends too early: the file is truncated or not ONNX");
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(count));
    rest_.remove_prefix(static_cast<size_t>(count));
    return taken;
  }

  std::string_view rest_;
  bool packed_ = false;
};

constexpr size_t MOST_ENTRIES = 100000;  // of metadata or tensors: far above any model's

// How many bytes a UTF-8 character has, by its first one; 0 for a byte that begins none, NUL among them.
size_t character_length(unsigned char lead) {
  if (lead == 0) return 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

// Whether the bytes are UTF-8 without NUL: text crosses into C and Python as it is.
bool is_text(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i]);
    const size_t length = character_length(lead);
    if (length == 0 || length > bytes.size() - i) return false;
    uint32_t point = length == 1 ? lead : lead & (0x7fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const auto byte = static_cast<unsigned char>(bytes[i + k]);
      if ((byte & 0xc0) != 0x80) return false;
      point = point << 6 | (byte & 0x3f);
    }
    const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    if (overlong || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
    i += length;
  }
  return true;
}

Tensor read_tensor(std::string_view bytes) {
  Tensor tensor;
  for (Message message(bytes); message.next();) {
    if (message.field == TENSOR_DIMS) message.append_integers(tensor.dims);
    if (message.field == TENSOR_TYPE) tensor.type = static_cast<int32_t>(message.number);
    if (message.field == TENSOR_NAME) tensor.name = message.bytes;
    if (message.field == TENSOR_RAW) tensor.data = message.bytes;
    if (message.field == TENSOR_LOCATION) tensor.elsewhere = message.number == 1;
    if (tensor.dims.size() > 16) fail(I2SB_ERROR_MODEL, "it holds a tensor of more than 16 axes");
  }
  if (!is_text(tensor.name)) fail(I2SB_ERROR_MODEL, "it holds a tensor whose name is not UTF-8 text");
  return tensor;
}

void read_graph(std::string_view bytes, std::vector<Tensor>& tensors) {
  for (Message graph(bytes); graph.next();) {
    if (graph.field != GRAPH_INITIALIZER) continue;
    if (tensors.size() == MOST_ENTRIES) fail(I2SB_ERROR_MODEL, "it holds too many tensors");
    tensors.push_back(read_tensor(graph.bytes));
  }
}

void read_entry(std::string_view bytes, std::map<std::string, std::string>& metadata) {
  std::string key, value;
  for (Message entry(bytes); entry.next();) {
    if (entry.field == ENTRY_KEY) key = entry.bytes;
    if (entry.field == ENTRY_VALUE) value = entry.bytes;
  }
  if (metadata.size() == MOST_ENTRIES) fail(I2SB_ERROR_MODEL, "it holds too much metadata");
  if (!is_text(key) || !is_text(value)) fail(I2SB_ERROR_MODEL, "its metadata hold what is not UTF-8 text");
  metadata[key] = value;
}

std::string read_file(const std::string& path) {
  const std::filesystem::path file(std::u8string(path.begin(), path.end()));
  std::error_code problem;
  if (!std::filesystem::exists(file, problem)) fail(I2SB_ERROR_MODEL, "there is no such file");
  if (!std::filesystem::is_regular_file(file, problem)) fail(I2SB_ERROR_MODEL, "it is not a file");
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  const auto size = stream ? static_cast<std::streamoff>(stream.tellg()) : std::streamoff{-1};
  if (size < 0) fail(I2SB_ERROR_MODEL, "it cannot be read");
  std::string bytes(static_cast<size_t>(size), '\0');
  stream.seekg(0);
  if (!stream.read(bytes.data(), size)) fail(I2SB_ERROR_MODEL, "it cannot be read to its end");
  return bytes;
}

constexpr const char* ALWAYS[] = {"format",     "name",     "task",          "prediction", "cond_x1", "add_x1_noise",
                                  "clip",       "channels", "upscale",       "multiple",   "minimum", "tile",
                                  "overlap",    "batch",    "sampler",       "nfe",        "dtype",   "network",
                                  "trained_on", "license",  "weights_sha256"};
constexpr const char* OF_I2SB[] = {"interval", "beta_max", "t0", "T", "ot_ode"};
constexpr const char* OF_DSB[] = {"gammas", "direction"};

class Metadata {
 public:
  explicit Metadata(const std::map<std::string, std::string>& entries) : entries_(entries) {
    for (const char* key : ALWAYS) value(key);
    if (value("sampler") == "dsb") {
      for (const char* key : OF_DSB) value(key);
    } else {
      for (const char* key : OF_I2SB) value(key);
    }
  }

  const std::string& value(const std::string& key) const {
    const auto found = entries_.find("i2sb." + key);
    if (found == entries_.end()) fail(I2SB_ERROR_MODEL, "its metadata lack the key i2sb." + key);
    return found->second;
  }

  int integer(const std::string& key, int least, int most) const {
    const std::string& text = value(key);
    int number = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (problem != std::errc{} || end != text.data() + text.size() || number < least || number > most)
      fail(I2SB_ERROR_MODEL, "i2sb." + key + " is '" + text + "', not a whole number from " + std::to_string(least) +
                                 " to " + std::to_string(most));
    return number;
  }

 private:
  const std::map<std::string, std::string>& entries_;
};

ModelRules read_rules(const std::map<std::string, std::string>& entries) {
  const Metadata metadata(entries);
  if (metadata.value("format") != "1")
    fail(I2SB_ERROR_MODEL, "i2sb.format is '" + metadata.value("format") + "', this library reads format 1");
  ModelRules rules;
  rules.channels = metadata.integer("channels", 1, 4096);
  rules.batch = metadata.integer("batch", 1, 4096);
  rules.cond_x1 = metadata.integer("cond_x1", 0, 1) != 0;
  rules.cond_mask = entries.contains("i2sb.cond_mask") && metadata.integer("cond_mask", 0, 1) != 0;
  if (entries.contains("i2sb.fill")) {
    const std::string& fill = metadata.value("fill");
    if (fill != "noise" && fill != "smooth")
      fail(I2SB_ERROR_MODEL, "i2sb.fill is '" + fill + "', neither noise nor smooth");
    rules.fills_smoothly = fill == "smooth";
  }
  rules.add_x1_noise = metadata.integer("add_x1_noise", 0, 1) != 0;
  rules.size.multiple = metadata.integer("multiple", 1, 4096);
  rules.size.minimum = metadata.integer("minimum", 1, 65536);
  rules.size.tile = metadata.integer("tile", 1, 65536);
  rules.size.overlap = metadata.integer("overlap", 0, 65536);
  rules.size.upscale = metadata.integer("upscale", 1, 64);
  const int g = std::lcm(rules.size.multiple, 16);
  if (rules.size.tile % g != 0 || rules.size.overlap % g != 0 || rules.size.overlap > rules.size.tile - g)
    fail(I2SB_ERROR_MODEL, "i2sb.tile and i2sb.overlap must be multiples of " + std::to_string(g) +
                               ", the overlap at most tile - " + std::to_string(g));
  return rules;
}

}  // namespace

static std::unique_ptr<i2sb_model> open_model(const std::string& path) {
  auto model = std::make_unique<i2sb_model>();
  model->path = path;
  try {
    model->bytes = read_file(path);
    bool has_graph = false;
    for (Message file(model->bytes); file.next();) {
      if (file.field == MODEL_GRAPH) read_graph(file.bytes, model->tensors);
      if (file.field == MODEL_METADATA) read_entry(file.bytes, model->metadata);
      has_graph |= file.field == MODEL_GRAPH;
    }
    if (!has_graph) fail(I2SB_ERROR_MODEL, "it holds no graph: it is not an ONNX model");
    model->rules = read_rules(model->metadata);
  } catch (const Failure& failure) {
    fail(failure.status, "model file " + path + ": " + failure.what());
  }
  return model;
}

}  // namespace i2sb

extern "C" {

i2sb_status i2sb_model_open(const char* path, i2sb_model** model, i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require(path && model, "path or model is NULL");
    *model = i2sb::open_model(path).release();
  });
}

void i2sb_model_free(i2sb_model* model) { delete model; }

const char* i2sb_model_metadata(const i2sb_model* model, const char* key) {
  if (!model || !key) return nullptr;
  for (const auto& [name, value] : model->metadata)
    if (name == key) return value.c_str();
  return nullptr;
}

int32_t i2sb_model_metadata_count(const i2sb_model* model) {
  return model ? static_cast<int32_t>(model->metadata.size()) : 0;
}

void i2sb_model_metadata_at(const i2sb_model* model, int32_t index, const char** key, const char** value) {
  if (index < 0 || index >= i2sb_model_metadata_count(model)) return;
  const auto entry = std::next(model->metadata.begin(), index);
  if (key) *key = entry->first.c_str();
  if (value) *value = entry->second.c_str();
}

int32_t i2sb_model_tensor_count(const i2sb_model* model) {
  return model ? static_cast<int32_t>(model->tensors.size()) : 0;
}

i2sb_status i2sb_model_tensor_at(const i2sb_model* model, int32_t index, i2sb_tensor_view* view, i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require_struct(view, "view");
    i2sb::require(index >= 0 && index < i2sb_model_tensor_count(model), "there is no tensor of that index");
    const i2sb::Tensor& tensor = model->tensors[static_cast<size_t>(index)];
    view->name = tensor.name.c_str();
    view->onnx_type = tensor.type;
    view->rank = static_cast<int32_t>(tensor.dims.size());
    view->dims = tensor.dims.data();
    view->data = tensor.elsewhere ? nullptr : tensor.data.data();
    view->bytes = tensor.elsewhere ? 0 : tensor.data.size();
  });
}

}  // extern "C"
