/* Reads and writes images that need no library: PPM (P6, colour) and PGM (P5, grey), 8 bits a value. */
#ifndef PPM_H
#define PPM_H
#include <i2sb_rt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PPM_LARGEST_SIDE 65535
#define PPM_MOST_PIXELS 134217728 /* asked for before any pixel is read */

typedef struct ppm {
  int width, height, channels; /* 3 or 1 */
  uint8_t* pixels;             /* free() it */
} ppm;

/* NULL where there is no memory. */
static inline uint8_t* ppm_make(ppm* image, int width, int height, int channels) {
  image->width = width;
  image->height = height;
  image->channels = channels;
  return image->pixels = (uint8_t*)malloc((size_t)width * (size_t)height * (size_t)channels);
}

/* As the library sees it. */
static inline i2sb_image ppm_view(const ppm* image) {
  i2sb_image view = {sizeof(i2sb_image), image->width, image->height, image->channels, I2SB_U8, image->pixels, 0};
  return view;
}

/* A number of the header, with the white space and the comments before it; -1 where there is none up to `most`. */
static inline int ppm_number(FILE* file, int most) {
  int value = -1, c = getc(file);
  while (c == '#' || c == ' ' || (c >= '\t' && c <= '\r')) {
    if (c == '#')
      while (c != '\n' && c != EOF) c = getc(file);
    c = getc(file);
  }
  for (; c >= '0' && c <= '9'; c = getc(file)) {
    value = (value < 0 ? 0 : value) * 10 + (c - '0');
    if (value > most) return -1;
  }
  ungetc(c, file);
  return value;
}

static inline const char* ppm_parse(FILE* file, ppm* image) {
  int width, height;
  size_t size;
  const int p = getc(file), kind = getc(file);
  if (p != 'P' || (kind != '5' && kind != '6')) return "is neither a PPM (P6) nor a PGM (P5)";
  width = ppm_number(file, PPM_LARGEST_SIDE);
  height = ppm_number(file, PPM_LARGEST_SIDE);
  if (width < 1 || height < 1) return "has no size, or one above 65535";
  if (height > PPM_MOST_PIXELS / width) return "has too many pixels";
  if (ppm_number(file, 255) != 255) return "does not have 255 as its largest value";
  if (!strchr(" \t\n\r", getc(file))) return "has no white space before its pixels";
  if (!ppm_make(image, width, height, kind == '6' ? 3 : 1)) return "does not fit into memory";
  size = (size_t)width * (size_t)height * (size_t)image->channels;
  if (fread(image->pixels, 1, size, file) != size) return "ends before its last pixel";
  if (getc(file) != EOF) return "goes on behind its last pixel";
  return NULL;
}

/* Returns NULL, or what is wrong: then there is nothing to free. */
static inline const char* ppm_read(const char* path, ppm* image) {
  const char* wrong;
  FILE* file = fopen(path, "rb");
  if (!file) return "cannot be opened";
  image->pixels = NULL;
  wrong = ppm_parse(file, image);
  fclose(file);
  if (!wrong) return NULL;
  free(image->pixels);
  image->pixels = NULL;
  return wrong;
}

/* Returns NULL, or what is wrong. Written beside its place and moved there when whole: no part of one is left. */
static inline const char* ppm_write(const char* path, const ppm* image) {
  const size_t row = (size_t)image->width * (size_t)image->channels;
  char* part = (char*)malloc(strlen(path) + sizeof ".part");
  FILE* file;
  int whole;
  if (!part) return "cannot be written: no memory is left";
  strcat(strcpy(part, path), ".part");
  file = fopen(part, "wb");
  if (!file) {
    free(part);
    return "cannot be written";
  }
  whole = fprintf(file, "P%d\n%d %d\n255\n", image->channels == 3 ? 6 : 5, image->width, image->height) > 0;
  whole = whole && fwrite(image->pixels, row, (size_t)image->height, file) == (size_t)image->height;
  whole = fclose(file) == 0 && whole; /* a full disk may be told here first */
  whole = whole && rename(part, path) == 0;
  if (!whole) remove(part);
  free(part);
  return whole ? NULL : "cannot be written";
}
#endif
