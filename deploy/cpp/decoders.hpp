// One decoder per file format. Each takes a whole file and throws std::runtime_error if it is damaged.
#pragma once

#include "image.hpp"

namespace vitcli {

using Bytes = std::vector<std::uint8_t>;

struct Decoded {
  Image image;  // 1 or 3 channels, as stored
  Bytes exif;   // a TIFF header and what follows; empty if there is none
};

Decoded decode_jpeg(const Bytes& file);
Decoded decode_png(const Bytes& file);
Decoded decode_netpbm(const Bytes& file);

// Throws for sizes that Pillow refuses, before memory is allocated for them.
void check_size(std::int64_t width, std::int64_t height);

// EXIF orientation, 1 (upright) to 8; 1 if there is none.
int orientation(const Bytes& exif);

}  // namespace vitcli
