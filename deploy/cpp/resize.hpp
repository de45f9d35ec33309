// Pillow's `Image.resize`, to the last bit.
#pragma once

#include <string>

#include "image.hpp"

namespace vitcli {

enum class Filter { nearest, bilinear, bicubic, lanczos };

// `image` with `width` x `height` pixels.
Image resize(const Image& image, int width, int height, Filter filter);

}  // namespace vitcli
