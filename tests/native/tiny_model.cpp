#include "tiny_model.h"

#include "host.hpp"

i2sb_model* load_tiny_model() {
  i2sb_model* model = nullptr;
  CHECK(tests::load(tests::onnx_bytes(), &model) == I2SB_OK);
  return model;
}
