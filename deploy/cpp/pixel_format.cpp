#include "pixel_format.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace vitcli {
namespace {

constexpr Limits SIXTEEN_BITS{0, 65535};

std::string shown(double value) {
  const std::string text = std::to_string(value);
  return value == std::floor(value) ? text.substr(0, text.find('.')) : text;
}

Limits declared(const DeepImage& deep) {
  double low = 0, high = 0;
  bool is_first = true;
  for (const double value : deep.values) {
    if (!std::isfinite(value)) continue;
    low = is_first ? value : std::min(low, value);
    high = is_first ? value : std::max(high, value);
    is_first = false;
  }
  if (deep.kind == Values::bits16 && high > 32767) return SIXTEEN_BITS;
  throw std::runtime_error("it has values from " + shown(low) + " to " + shown(high) +
                           "; which are black and white is not known: export the network with --pixel_range");
}

// ITU-R 601-2 luma with 16 fractional bits, as in Pillow's convert("L").
std::uint8_t luma(const std::uint8_t* rgb) {
  return static_cast<std::uint8_t>((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16);
}

}  // namespace

Image in_8_bits(const DeepImage& deep, const std::optional<Limits>& pixel_range) {
  const Limits limits = pixel_range ? *pixel_range : declared(deep);
  const double count = limits.high - limits.low + (deep.kind == Values::reals ? 0 : 1);
  Image image(deep.width, deep.height, deep.channels);
  std::transform(deep.values.begin(), deep.values.end(), image.pixels.begin(), [&](double value) {
    if (std::isnan(value)) return std::uint8_t{0};
    return static_cast<std::uint8_t>(std::clamp(std::floor((value - limits.low) * 256 / count), 0.0, 255.0));
  });
  return image;
}

Image to_channels(const Image& image, int channels) {
  if (image.channels == channels) return image;
  if ((channels != 1 && channels != 3) || image.channels > 4) {
    throw std::runtime_error("it has " + std::to_string(image.channels) + " channels, and the network takes " +
                             std::to_string(channels));
  }
  const bool is_gray = image.channels < 3;  // the last of two or four is transparency
  Image result(image.width, image.height, channels);
  const std::uint8_t* in = image.pixels.data();
  for (std::uint8_t* out = result.pixels.data(); out != result.pixels.data() + result.pixels.size();) {
    if (channels == 1) {
      *out++ = is_gray ? in[0] : luma(in);
    } else {
      for (int channel = 0; channel < 3; ++channel) *out++ = in[is_gray ? 0 : channel];
    }
    in += image.channels;
  }
  return result;
}

}  // namespace vitcli
