// How the core fails inside: by exception; and how that ends at the C boundary: as a status and a sentence.
#pragma once

#include <algorithm>
#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "i2sb_rt.h"

namespace i2sb {

// Sizes are bounded by 1e12 values of an array, and multiplied as they are.
static_assert(sizeof(std::size_t) == 8, "this library needs a 64-bit machine");

constexpr size_t SENTENCE_SIZE = 1024;  // of the last error, its NUL included

class Failure : public std::runtime_error {
 public:
  Failure(i2sb_status status, const std::string& sentence) : std::runtime_error(sentence), status(status) {}
  i2sb_status status;
};

[[noreturn]] inline void fail(i2sb_status status, const std::string& sentence) { throw Failure(status, sentence); }

inline void require(bool holds, const char* sentence) {
  if (!holds) fail(I2SB_ERROR_ARGUMENT, sentence);
}

// The default floating-point environment, in place of the caller's for as long as it lives: the same bytes come out
// whatever the host program rounds to, flushes to zero or traps. Threads begin with their maker's.
class DefaultFloats {
 public:
  DefaultFloats() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;
  ~DefaultFloats() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_;
};

// Runs the body of an exported function; no exception leaves it.
template <typename Body>
i2sb_status guard(Body&& body) noexcept {
  const DefaultFloats floats;
  try {
    std::forward<Body>(body)();
    return I2SB_OK;
  } catch (const Failure& failure) {
    return i2sb_fail(failure.status, failure.what());
  } catch (const std::bad_alloc&) {
    return i2sb_fail(I2SB_ERROR_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return i2sb_fail(I2SB_ERROR_MEMORY, "out of memory: the sizes asked for are beyond what can be allocated");
  } catch (const std::exception& fault) {
    return i2sb_fail(I2SB_ERROR_INTERNAL, fault.what());
  } catch (...) {
    return i2sb_fail(I2SB_ERROR_INTERNAL, "unknown fault");
  }
}

// Every public struct begins with its size. A larger one comes from a newer header: its further fields must be zero,
// which asks for nothing that this library does not know. Smaller ones, from older headers, have one of the `former`
// sizes.
template <typename Struct>
void require_struct(const Struct* value, const char* name, std::initializer_list<size_t> former = {}) {
  constexpr uint32_t LARGEST = 4096;  // far above any struct's: else it was never set
  if (!value) fail(I2SB_ERROR_ARGUMENT, std::string(name) + " is NULL");
  const uint32_t size = value->struct_size;
  if (std::find(former.begin(), former.end(), size) != former.end()) return;
  const auto* bytes = reinterpret_cast<const unsigned char*>(value);
  const bool fits = size >= sizeof(Struct) && size <= LARGEST &&
                    std::all_of(bytes + sizeof(Struct), bytes + size, [](unsigned char byte) { return byte == 0; });
  if (!fits)
    fail(I2SB_ERROR_ARGUMENT, std::string(name) + ".struct_size is " + std::to_string(size) + ", this library's is " +
                                  std::to_string(sizeof(Struct)) +
                                  (size > sizeof(Struct) ? " and knows no fields behind it: it is older" : ""));
}

// A copy of a struct that has grown, with zeros in what an older header lacks.
template <typename Struct>
Struct taken(const Struct* value, const char* name, std::initializer_list<size_t> former) {
  require_struct(value, name, former);
  Struct copy{};
  std::memcpy(&copy, value, std::min<size_t>(value->struct_size, sizeof copy));
  copy.struct_size = sizeof copy;
  return copy;
}

// Gives a result in a struct whose size the caller has set; what is behind our fields stays as it is.
template <typename Struct>
void give_struct(Struct* to, Struct from) {
  from.struct_size = to->struct_size;
  *to = from;
}

}  // namespace i2sb
