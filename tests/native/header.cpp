#include "i2sb_rt.h"

int main() { return sizeof(i2sb_plan) > 0 ? 0 : 1; }
