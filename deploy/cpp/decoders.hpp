// One decoder per file format. Each takes a whole file and throws std::runtime_error if it is damaged.
#pragma once

#include "image.hpp"
#include "pixel_format.hpp"

namespace vitcli {

using Bytes = std::vector<std::uint8_t>;

struct Decoded {
  Image image;                    // as stored, with its transparency
  std::optional<DeepImage> deep;  // instead of `image`, if there are more than 8 bits per channel
  Bytes exif;                     // a TIFF header and what follows; empty if there is none
};

Decoded decode_jpeg(const Bytes& file);
Decoded decode_png(const Bytes& file);
Decoded decode_netpbm(const Bytes& file);
Decoded decode_npy(const Bytes& file);

// Throws for sizes that Pillow refuses, before memory is allocated for them.
void check_size(std::int64_t width, std::int64_t height);

// EXIF orientation, 1 (upright) to 8; 1 if there is none.
int orientation(const Bytes& exif);

}  // namespace vitcli
