// How the core fails inside: by exception; and how that ends at the C boundary: as a status and a sentence.
#pragma once

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "i2sb_rt.h"

namespace i2sb {

class Failure : public std::runtime_error {
 public:
  Failure(i2sb_status status, const std::string& sentence) : std::runtime_error(sentence), status(status) {}
  i2sb_status status;
};

[[noreturn]] inline void fail(i2sb_status status, const std::string& sentence) { throw Failure(status, sentence); }

inline void require(bool holds, const char* sentence) {
  if (!holds) fail(I2SB_ERROR_ARGUMENT, sentence);
}

inline i2sb_status report(i2sb_error* error, i2sb_status status, const char* sentence) noexcept {
  if (error) std::snprintf(error->message, sizeof error->message, "%s", sentence);
  return status;
}

// Runs the body of an exported function; no exception leaves it.
template <typename Body>
i2sb_status guard(i2sb_error* error, Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return I2SB_OK;
  } catch (const Failure& failure) {
    return report(error, failure.status, failure.what());
  } catch (const std::bad_alloc&) {
    return report(error, I2SB_ERROR_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return report(error, I2SB_ERROR_MEMORY, "out of memory: the sizes asked for are beyond what can be allocated");
  } catch (const std::exception& fault) {
    return report(error, I2SB_ERROR_INTERNAL, fault.what());
  } catch (...) {
    return report(error, I2SB_ERROR_INTERNAL, "unknown fault");
  }
}

// Every public struct begins with its size: a smaller one comes from an older header and lacks fields.
template <typename Struct>
void require_struct(const Struct* value, const char* name) {
  if (!value) fail(I2SB_ERROR_ARGUMENT, std::string(name) + " is NULL");
  if (value->struct_size != sizeof(Struct))
    fail(I2SB_ERROR_ARGUMENT, std::string(name) + ".struct_size is " + std::to_string(value->struct_size) +
                                  ", this library's is " + std::to_string(sizeof(Struct)));
}

}  // namespace i2sb
