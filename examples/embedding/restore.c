/* Restores an image: restore MODEL.onnx IN.ppm OUT.ppm [MASK.pgm]
 *
 * A mask is for models that fill holes: 0 where the image is known, anything else in the hole.
 * Exit codes: 0 done, 2 wrong arguments, 3 an image's file, 10 + i2sb_status where the library failed. */
#include <i2sb_rt.h>
#include <stdio.h>
#include <stdlib.h>

#include "ppm.h"

enum { DONE = 0, USAGE = 2, IMAGE = 3, LIBRARY = 10 };

static int library_failed(i2sb_status status) {
  fprintf(stderr, "restore: %s\n", i2sb_last_error());
  return LIBRARY + (int)status;
}

static int image_failed(const char* path, const char* wrong) {
  fprintf(stderr, "restore: %s %s\n", path, wrong);
  return IMAGE;
}

static int restore(const i2sb_model* model, const ppm* in, const ppm* hole, const char* target) {
  i2sb_layout layout = {0};
  i2sb_restore_params params;
  i2sb_session* session = NULL;
  i2sb_image from = ppm_view(in), mask = ppm_view(hole), to;
  i2sb_status status;
  ppm result;
  const char* wrong;
  int code = DONE;

  layout.struct_size = sizeof layout;
  status = i2sb_model_layout(model, in->width, in->height, -1, -1, &layout);
  if (status != I2SB_OK) return library_failed(status);
  /* Not the size of the image where the model enlarges. */
  if (!ppm_make(&result, layout.width, layout.height, in->channels))
    return image_failed(target, "does not fit into memory");
  to = ppm_view(&result);

  i2sb_restore_params_init(&params, sizeof params);
  params.image = &from;
  params.mask = hole->pixels ? &mask : NULL;
  params.out = &to;
  status = i2sb_session_create(model, NULL, &session);
  if (status == I2SB_OK) status = i2sb_restore(session, &params);
  if (status != I2SB_OK)
    code = library_failed(status);
  else if ((wrong = ppm_write(target, &result)) != NULL)
    code = image_failed(target, wrong);
  i2sb_session_free(session);
  free(result.pixels);
  return code;
}

int main(int count, char** arguments) {
  i2sb_model_params loading;
  i2sb_model* model = NULL;
  i2sb_status status;
  ppm in = {0, 0, 0, NULL}, hole = {0, 0, 0, NULL};
  const char* wrong;
  int code;

  if (count != 4 && count != 5) {
    fprintf(stderr, "usage: restore MODEL.onnx IN.ppm OUT.ppm [MASK.pgm]\n");
    return USAGE;
  }
  if ((wrong = ppm_read(arguments[2], &in)) != NULL) {
    code = image_failed(arguments[2], wrong);
  } else if (count == 5 && (wrong = ppm_read(arguments[4], &hole)) != NULL) {
    code = image_failed(arguments[4], wrong);
  } else {
    i2sb_model_params_init(&loading, sizeof loading);
    loading.path = arguments[1];
    status = i2sb_model_load(&loading, &model);
    code = status == I2SB_OK ? restore(model, &in, &hole, arguments[3]) : library_failed(status);
    i2sb_model_free(model); /* after its sessions */
  }
  free(hole.pixels);
  free(in.pixels);
  return code;
}
