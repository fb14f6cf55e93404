// The header stands alone in C++17.
#include "i2sb_rt.h"

int main() { return i2sb_abi_version() == I2SB_ABI_VERSION ? 0 : 1; }
