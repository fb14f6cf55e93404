/* What every test here checks with, in C and in C++. */
#ifndef I2SB_TESTS_CHECK_H
#define I2SB_TESTS_CHECK_H
#include <stdio.h>
#include <stdlib.h>

#include "i2sb_rt.h"

/* Also in a release build, and from any thread. */
#define CHECK(holds)                                                                                    \
  do {                                                                                                  \
    if (!(holds)) {                                                                                     \
      fprintf(stderr, "%s:%d: %s (last error: '%s')\n", __FILE__, __LINE__, #holds, i2sb_last_error()); \
      abort();                                                                                          \
    }                                                                                                   \
  } while (0)

/* That a call fails, with this status and a sentence of its own. */
#define REFUSED(expected, call)          \
  do {                                   \
    i2sb_fail(I2SB_OK, "");              \
    CHECK((call) == (expected));         \
    CHECK(i2sb_last_error()[0] != '\0'); \
  } while (0)

#endif
