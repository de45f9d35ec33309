// One decoder per kind of file. Each takes a whole file and throws std::runtime_error where it is damaged.
#pragma once

#include <string>

#include "image.hpp"

namespace vitcli {

using Bytes = std::vector<std::uint8_t>;

struct Decoded {
  Image image;      // 1 or 3 channels, as stored
  Bytes exif;       // a TIFF header and what follows; empty if there is none
  std::string xmp;  // XML; empty if there is none
};

Decoded decode_jpeg(const Bytes& file);
Decoded decode_png(const Bytes& file);
Decoded decode_netpbm(const Bytes& file);

// Refuses what Pillow would refuse, before memory is taken for it.
void check_size(std::int64_t width, std::int64_t height);

// EXIF orientation, 1 (upright) to 8, by Pillow's rule: EXIF's word, else XMP's, else 1.
int orientation(const Bytes& exif, const std::string& xmp);

}  // namespace vitcli
