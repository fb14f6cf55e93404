/* The model of onnx_bytes.hpp for tests in C. */
#ifndef I2SB_TESTS_TINY_MODEL_H
#define I2SB_TESTS_TINY_MODEL_H
#include "i2sb_rt.h"

#ifdef __cplusplus
extern "C" {
#endif
i2sb_model* load_tiny_model(void);
#ifdef __cplusplus
}
#endif
#endif
