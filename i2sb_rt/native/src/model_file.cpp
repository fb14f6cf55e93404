#include "model_file.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

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
  void append_integers(std::pmr::vector<int64_t>& to) const {
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

Tensor read_tensor(std::string_view bytes, std::pmr::memory_resource* memory) {
  Tensor tensor(memory);
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

void read_graph(std::string_view bytes, std::pmr::vector<Tensor>& tensors) {
  for (Message graph(bytes); graph.next();) {
    if (graph.field != GRAPH_INITIALIZER) continue;
    if (tensors.size() == MOST_ENTRIES) fail(I2SB_ERROR_MODEL, "it holds too many tensors");
    tensors.push_back(read_tensor(graph.bytes, tensors.get_allocator().resource()));
  }
}

void read_entry(std::string_view bytes, Entries& metadata) {
  std::string_view key, value;
  for (Message entry(bytes); entry.next();) {
    if (entry.field == ENTRY_KEY) key = entry.bytes;
    if (entry.field == ENTRY_VALUE) value = entry.bytes;
  }
  if (metadata.size() == MOST_ENTRIES) fail(I2SB_ERROR_MODEL, "it holds too much metadata");
  if (!is_text(key) || !is_text(value)) fail(I2SB_ERROR_MODEL, "its metadata hold what is not UTF-8 text");
  const auto found = metadata.find(key);
  if (found != metadata.end())
    found->second = value;
  else
    metadata.emplace(key, value);
}

std::filesystem::path path_of(std::string_view path) { return std::u8string(path.begin(), path.end()); }

void read_file(std::string_view path, std::pmr::string& bytes) {
  const std::filesystem::path file = path_of(path);
  std::error_code problem;
  if (!std::filesystem::exists(file, problem)) fail(I2SB_ERROR_MODEL, "there is no such file");
  if (!std::filesystem::is_regular_file(file, problem)) fail(I2SB_ERROR_MODEL, "it is not a file");
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  const auto size = stream ? static_cast<std::streamoff>(stream.tellg()) : std::streamoff{-1};
  if (size < 0) fail(I2SB_ERROR_MODEL, "it cannot be read");
  bytes.resize(static_cast<size_t>(size));
  stream.seekg(0);
  if (!stream.read(bytes.data(), size)) fail(I2SB_ERROR_MODEL, "it cannot be read to its end");
}

// From a function that gives the bytes piece by piece.
void read_pieces(int64_t (*read)(void*, void*, size_t), void* user, std::pmr::string& bytes) {
  constexpr size_t FIRST = size_t{1} << 20;
  for (size_t filled = 0;;) {
    if (filled == bytes.size()) bytes.resize(std::max(FIRST, 2 * filled));
    const size_t room = bytes.size() - filled;
    const int64_t got = read(user, bytes.data() + filled, room);
    if (got < 0) fail(I2SB_ERROR_MODEL, "the function that gives it failed");
    if (static_cast<uint64_t>(got) > room)
      fail(I2SB_ERROR_ARGUMENT, "the function that gives it wrote more than it was asked for");
    filled += static_cast<size_t>(got);
    if (got == 0) {
      bytes.resize(filled);
      bytes.shrink_to_fit();
      return;
    }
  }
}

// What a file is called where it fails.
std::string source_of(const i2sb_model_params& params) {
  return params.path ? "model file " + std::string(params.path) : "model";
}

using Loaded = std::unique_ptr<i2sb_model, Released<i2sb_model>>;

Loaded load_model(const i2sb_model_params& params) {
  require((params.path != nullptr) + (params.data != nullptr) + (params.read != nullptr) == 1,
          "one of path, data and read must be given");
  Loaded model = make_in<i2sb_model>(Memory(params.allocator));
  try {
    if (params.path) {
      // Where it is read again, the program may have left its folder.
      std::error_code unknown;
      model->path = std::filesystem::absolute(path_of(params.path), unknown).string();
      model->state = FileState::of(model->path);
      read_file(params.path, model->bytes);
    } else if (params.read) {
      read_pieces(params.read, params.read_user, model->bytes);
    } else {
      model->bytes.assign(static_cast<const char*>(params.data), params.data_size);
    }
    bool has_graph = false;
    for (Message file(model->bytes); file.next();) {
      if (file.field == MODEL_GRAPH) read_graph(file.bytes, model->tensors);
      if (file.field == MODEL_METADATA) read_entry(file.bytes, model->metadata);
      has_graph |= file.field == MODEL_GRAPH;
    }
    if (!has_graph) fail(I2SB_ERROR_MODEL, "it holds no graph: it is not an ONNX model");
    model->rules = read_rules(model->metadata);
  } catch (const Failure& failure) {
    fail(failure.status, source_of(params) + ": " + failure.what());
  }
  if (params.log) {
    const std::string told = source_of(params) + ": " + model->rules.name + ", " + std::to_string(model->bytes.size()) +
                             " bytes, " + std::to_string(model->tensors.size()) + " tensors";
    params.log(params.log_user, told.c_str());
  }
  return model;
}

}  // namespace

FileState FileState::of(std::string_view path) {
  const std::filesystem::path file = path_of(path);
  std::error_code missing;
  const std::uintmax_t size = std::filesystem::file_size(file, missing);
  if (missing) return {};
  return {size, std::filesystem::last_write_time(file, missing)};
}

}  // namespace i2sb

extern "C" {

i2sb_status i2sb_model_load(const i2sb_model_params* params, i2sb_model** model) {
  return i2sb::guard([&] {
    i2sb::require_struct(params, "params");
    i2sb::require(model != nullptr, "model is NULL");
    *model = i2sb::load_model(*params).release();
  });
}

void i2sb_model_free(i2sb_model* model) { i2sb::Released<i2sb_model>()(model); }

const char* i2sb_model_metadata(const i2sb_model* model, const char* key) {
  if (!model || !key) return nullptr;
  const auto found = model->metadata.find(std::string_view(key));
  return found == model->metadata.end() ? nullptr : found->second.c_str();
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

i2sb_status i2sb_model_tensor_at(const i2sb_model* model, int32_t index, i2sb_tensor* tensor) {
  return i2sb::guard([&] {
    i2sb::require_struct(tensor, "tensor");
    i2sb::require(index >= 0 && index < i2sb_model_tensor_count(model), "there is no tensor of that index");
    const i2sb::Tensor& found = model->tensors[static_cast<size_t>(index)];
    i2sb_tensor told{};
    told.onnx_type = found.type;
    told.rank = static_cast<int32_t>(found.dims.size());
    told.name = found.name.c_str();
    told.dims = found.dims.data();
    told.data = found.elsewhere ? nullptr : found.data.data();
    told.data_size = found.elsewhere ? 0 : found.data.size();
    i2sb::give_struct(tensor, told);
  });
}

}  // extern "C"
