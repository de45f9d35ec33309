// Pixels, and how a file becomes pixels, by the rules of vitcli/data/decode.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
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
  int channels = 0;                  // 1 gray, 3 RGB
  std::vector<std::uint8_t> pixels;  // (height, width, channels)
};

// The RGB image in a JPEG, PNG, PPM or PGM file, upright. Throws BadImage.
Image read_image(const std::filesystem::path& path);

}  // namespace vitcli
