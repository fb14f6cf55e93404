// The C++ header stands alone in C++17, and turns a failure into an exception with its sentence.
#include "i2sb_rt.hpp"

int main() {
  try {
    i2sb_rt::Model("/nowhere/model.onnx");
  } catch (const i2sb_rt::Error& error) {
    const bool named = std::string(error.what()).find("/nowhere/model.onnx") != std::string::npos;
    return error.status == I2SB_ERROR_MODEL && named ? 0 : 1;
  }
  return 1;
}
