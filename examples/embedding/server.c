/* Keeps a model warm and restores on request: server MODEL.onnx
 *
 * Reads a request a line, "IN.ppm OUT.ppm [SEED]" (names without spaces), and answers each with a line on standard
 * output: "ok MILLISECONDS" or "error SENTENCE". Ends with its input.
 * Exit codes: 0, 2 wrong arguments, 10 + i2sb_status where the model cannot be loaded or run. */
#define _POSIX_C_SOURCE 200112L
#include <ctype.h>
#include <errno.h>
#include <i2sb_rt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ppm.h"

enum { USAGE = 2, LIBRARY = 10, LONGEST_LINE = 4096, MOST_WORDS = 3 };

typedef struct server {
  i2sb_model* model;
  i2sb_session* session; /* with an engine of its own, which keeps the networks that it has compiled */
  char sentence[LONGEST_LINE + 64];
} server;

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static const char* about(server* self, const char* path, const char* wrong) {
  snprintf(self->sentence, sizeof self->sentence, "%s %s", path, wrong);
  return self->sentence;
}

/* Returns NULL, or what is wrong. */
static const char* restore_into(server* self, const ppm* in, ppm* out, uint64_t seed) {
  const i2sb_image from = ppm_view(in);
  i2sb_image to;
  i2sb_layout layout = {0};
  i2sb_restore_params params;
  layout.struct_size = sizeof layout;
  if (i2sb_model_layout(self->model, in->width, in->height, -1, -1, &layout) != I2SB_OK) return i2sb_last_error();
  if (!ppm_make(out, layout.width, layout.height, in->channels)) return "the result does not fit into memory";
  to = ppm_view(out);
  i2sb_restore_params_init(&params, sizeof params);
  params.image = &from;
  params.out = &to;
  params.seed = seed;
  return i2sb_restore(self->session, &params) == I2SB_OK ? NULL : i2sb_last_error();
}

static const char* restore(server* self, const char* source, const char* target, uint64_t seed) {
  ppm in, out = {0, 0, 0, NULL};
  const char* wrong = ppm_read(source, &in);
  if (wrong) return about(self, source, wrong);
  wrong = restore_into(self, &in, &out, seed);
  if (!wrong && (wrong = ppm_write(target, &out)) != NULL) wrong = about(self, target, wrong);
  free(out.pixels);
  free(in.pixels);
  return wrong;
}

static const char* serve(server* self, char* line) {
  char *words[MOST_WORDS + 1], *word, *end;
  int count = 0;
  uint64_t seed = 0;
  for (word = strtok(line, " \t\r\n"); word && count <= MOST_WORDS; word = strtok(NULL, " \t\r\n"))
    words[count++] = word;
  if (count < 2 || count > MOST_WORDS) return "a request is IN.ppm OUT.ppm [SEED]";
  if (count == MOST_WORDS) {
    errno = 0;
    seed = strtoull(words[2], &end, 10);
    if (!isdigit((unsigned char)words[2][0]) || *end || errno) return "the seed is not a number from 0 to 2^64 - 1";
  }
  return restore(self, words[0], words[1], seed);
}

static void answer(const char* wrong, double milliseconds) {
  if (!wrong) {
    printf("ok %.0f\n", milliseconds);
  } else {
    fputs("error ", stdout);
    for (; *wrong; ++wrong) putchar(iscntrl((unsigned char)*wrong) ? ' ' : *wrong); /* a sentence may have lines */
    putchar('\n');
  }
  fflush(stdout);
}

int main(int count, char** arguments) {
  static server self;
  i2sb_model_params loading;
  i2sb_status status;
  char line[LONGEST_LINE];
  int c;
  if (count != 2) {
    fprintf(stderr, "usage: server MODEL.onnx\n");
    return USAGE;
  }
  i2sb_model_params_init(&loading, sizeof loading);
  loading.path = arguments[1];
  status = i2sb_model_load(&loading, &self.model);
  if (status == I2SB_OK) status = i2sb_session_create(self.model, NULL, &self.session);
  if (status != I2SB_OK) fprintf(stderr, "server: %s\n", i2sb_last_error());
  while (status == I2SB_OK && fgets(line, sizeof line, stdin)) {
    const double begin = now_ms();
    const char* wrong = "the request is too long";
    if (strchr(line, '\n') || feof(stdin))
      wrong = serve(&self, line);
    else
      while ((c = getchar()) != '\n' && c != EOF) continue;
    answer(wrong, now_ms() - begin);
  }
  i2sb_session_free(self.session);
  i2sb_model_free(self.model);
  return status == I2SB_OK ? 0 : LIBRARY + (int)status;
}
