#include "i2sb_rt.h"

extern "C" const char* i2sb_version_string(void) { return I2SB_VERSION; }
