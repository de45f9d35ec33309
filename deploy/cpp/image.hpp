// Pixels, and how a file becomes pixels, by the rules of vitcli/data/decode.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace vitcli {

struct Image {
  Image() = default;
  Image(int width, int height, int channels)
      : width(width), height(height), channels(channels), pixels(std::size_t{1} * width * height * channels) {}

  std::uint8_t* at(int x, int y) { return &pixels[(std::size_t{1} * y * width + x) * channels]; }
  const std::uint8_t* at(int x, int y) const { return &pixels[(std::size_t{1} * y * width + x) * channels]; }

  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<std::uint8_t> pixels;  // (height, width, channels)
};

// The darkest and the brightest value of images of more than 8 bits.
struct Limits {
  double low, high;
};

// What a network takes; see pixel_format.hpp.
struct PixelFormat {
  int channels;
  std::optional<Limits> pixel_range;
};

// The image in a JPEG, PNG, NPY, PPM or PGM file in that format, upright. Throws BadImage.
Image read_image(const std::filesystem::path& path, const PixelFormat& format);

}  // namespace vitcli
