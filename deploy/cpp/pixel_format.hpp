// From the values that a file holds to what a network takes, by the rules of vitcli/data/pixel_format.py.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "image.hpp"

namespace vitcli {

// Values of more than 8 bits, (height, width, channels): unsigned of 16 bits, other integers, or floating point.
enum class Values { bits16, integers, reals };

struct DeepImage {
  int width, height, channels;
  Values kind;
  std::vector<double> values;
};

// The values that become black and white, in 256 equal steps; without limits, 16 bits whose upper half is used.
// Throws std::runtime_error if the range is not known.
Image in_8_bits(const DeepImage& deep, const std::optional<Limits>& pixel_range);

// 3: gray is repeated, transparency dropped. 1: luma. Another number: the image must have it, or std::runtime_error.
Image to_channels(const Image& image, int channels);

}  // namespace vitcli
