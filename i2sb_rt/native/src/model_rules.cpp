#include "model_rules.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "failure.hpp"
#include "plan.hpp"

namespace i2sb {
namespace {

constexpr const char* ALWAYS[] = {"format",     "name",     "task",          "prediction", "cond_x1", "add_x1_noise",
                                  "clip",       "channels", "upscale",       "multiple",   "minimum", "tile",
                                  "overlap",    "batch",    "sampler",       "nfe",        "dtype",   "network",
                                  "trained_on", "license",  "weights_sha256"};
constexpr const char* OF_I2SB[] = {"interval", "beta_max", "t0", "T", "ot_ode"};
constexpr const char* OF_DSB[] = {"gammas", "direction"};

class Metadata {
 public:
  explicit Metadata(const Entries& entries) : entries_(entries) {
    for (const char* key : ALWAYS) value(key);
    if (is_dsb()) {
      for (const char* key : OF_DSB) value(key);
    } else {
      for (const char* key : OF_I2SB) value(key);
    }
  }

  bool is_dsb() const { return value("sampler") == "dsb"; }

  bool has(const std::string& key) const { return find(key) != entries_.end(); }

  const std::pmr::string& value(const std::string& key) const {
    const auto found = find(key);
    if (found == entries_.end()) fail(I2SB_ERROR_MODEL, "its metadata lack the key i2sb." + key);
    return found->second;
  }

  int integer(const std::string& key, int least, int most) const {
    int number = 0;
    if (!parse(value(key), number) || number < least || number > most)
      refuse(key, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    return number;
  }

  bool flag(const std::string& key) const { return integer(key, 0, 1) != 0; }

  double decimal(const std::string& key) const {
    double number = 0;
    if (!parse(value(key), number) || !std::isfinite(number)) refuse(key, "a decimal number");
    return number;
  }

  // The value, which must be one of those given.
  template <size_t count>
  const char* one_of(const std::string& key, const std::array<const char*, count>& allowed) const {
    const std::pmr::string& text = value(key);
    std::string names;
    for (const char* name : allowed) {
      if (text == name) return text.c_str();
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    refuse(key, "one of " + names);
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& right) const {
    fail(I2SB_ERROR_MODEL, "i2sb." + key + " is '" + std::string(value(key)) + "', not " + right);
  }

 private:
  Entries::const_iterator find(const std::string& key) const {
    const std::string whole = "i2sb." + key;
    return entries_.find(std::string_view(whole));
  }

  template <typename Number>
  static bool parse(std::string_view text, Number& number) {
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    return problem == std::errc{} && end == text.data() + text.size();
  }

  const Entries& entries_;
};

constexpr std::array SAMPLERS{"sde", "ode", "dbim1", "dbim2", "dbim3", "i3sb", "dsb"};
constexpr std::array PREDICTIONS{"noise", "mean"};
constexpr std::array PREDICTIONS_OF_DSB{"drift", "noise", "mean", "residual"};
constexpr std::array DIRECTIONS{"forward", "backward"};
constexpr std::array FILLS{"noise", "smooth"};

constexpr int LARGEST_MINIMUM = 11313;  // every picture is padded to it: a square of 128 million pixels

SizeRules read_size(const Metadata& metadata) {
  SizeRules size{};
  size.multiple = metadata.integer("multiple", 1, 4096);
  size.minimum = metadata.integer("minimum", 1, LARGEST_MINIMUM);
  size.tile = metadata.integer("tile", 1, 65536);
  size.overlap = metadata.integer("overlap", 0, 65536);
  size.upscale = metadata.integer("upscale", 1, 64);
  const int g = std::lcm(size.multiple, 16);
  if (size.tile % g != 0 || size.overlap % g != 0 || size.overlap > size.tile - g)
    fail(I2SB_ERROR_MODEL, "i2sb.tile and i2sb.overlap must be multiples of " + std::to_string(g) +
                               ", the overlap at most tile - " + std::to_string(g));
  return size;
}

// The first key of a JSON object; nothing where there is none.
std::string_view first_key(std::string_view object) {
  const size_t quote = object.find('"');
  if (quote == object.npos) return {};
  object.remove_prefix(quote + 1);
  return object.substr(0, object.find('"'));
}

void read_dsb(const Metadata& metadata, ModelRules& rules) {
  rules.prediction = metadata.one_of("prediction", PREDICTIONS_OF_DSB);
  rules.direction = metadata.one_of("direction", DIRECTIONS);
  rules.gammas = metadata.value("gammas").c_str();
  if (parse_gammas(rules.gammas).empty()) metadata.refuse("gammas", "decimals from 1e-12 to 1e12, separated by commas");
  if (rules.clip) metadata.refuse("clip", "0, as the states of dsb are no images until the end");
}

}  // namespace

ModelRules read_rules(const Entries& entries) {
  const Metadata metadata(entries);
  if (metadata.value("format") != "1")
    fail(I2SB_ERROR_MODEL,
         "i2sb.format is '" + std::string(metadata.value("format")) + "', this library reads format 1");
  ModelRules rules;
  rules.name = metadata.value("name").c_str();
  rules.sampler = metadata.one_of("sampler", SAMPLERS);
  rules.channels = metadata.integer("channels", 1, 4096);
  rules.batch = metadata.integer("batch", 1, 4096);
  rules.nfe = metadata.integer("nfe", 1, 1000000);
  rules.cond_x1 = metadata.flag("cond_x1");
  rules.add_x1_noise = metadata.flag("add_x1_noise");
  rules.clip = metadata.flag("clip");
  // Keys that older files lack.
  rules.cond_mask = metadata.has("cond_mask") && metadata.flag("cond_mask");
  rules.fills_smoothly = metadata.has("fill") && metadata.one_of("fill", FILLS) == std::string_view("smooth");
  rules.needs_mask = rules.cond_mask || metadata.value("task").starts_with("inpaint");
  rules.holds_points = first_key(metadata.value("network")) == "mlp";
  if (metadata.is_dsb()) {
    read_dsb(metadata, rules);
  } else {
    rules.prediction = metadata.one_of("prediction", PREDICTIONS);
    rules.ot_ode = metadata.flag("ot_ode");
    rules.schedule = {sizeof rules.schedule, metadata.integer("interval", 2, 1000000), metadata.decimal("beta_max"),
                      metadata.decimal("t0"), metadata.decimal("T")};
  }
  rules.size = read_size(metadata);
  return rules;
}

}  // namespace i2sb
