// The eight ways in which an image can be laid: mirrored, upside down, and with rows and columns changed about.
#pragma once

#include <cstddef>

namespace i2sb {

// Planes [planes, height, width], and one of the ways to lay them: bit 0 mirrors left and right, bit 1 turns upside
// down, bit 2 makes rows of columns. Way 0 is as they lie; 0 to 3 keep the size.
struct Turn {
  int way, height, width;

  bool swaps() const { return (way & 4) != 0; }
  int turned_height() const { return swaps() ? width : height; }
  int turned_width() const { return swaps() ? height : width; }

  // Calls body(turned, lying) with the places in a plane of each pixel as turned, row by row, and as it lies.
  template <typename Body>
  void each(Body&& body) const {
    const ptrdiff_t right = swaps() ? width : 1, down = swaps() ? 1 : width;
    const ptrdiff_t along = way & 1 ? -right : right, across = way & 2 ? -down : down;
    const int rows = turned_height(), columns = turned_width();
    ptrdiff_t line = (way & 1 ? right * (columns - 1) : 0) + (way & 2 ? down * (rows - 1) : 0);
    size_t turned = 0;
    for (int y = 0; y < rows; ++y, line += across) {
      ptrdiff_t lying = line;
      for (int x = 0; x < columns; ++x, lying += along) body(turned++, static_cast<size_t>(lying));
    }
  }
};

}  // namespace i2sb
