// What an image becomes before the network sees it: `build_eval_transform` of vitcli/data/eval_transform.py.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact.hpp"
#include "image.hpp"

namespace vitcli {

struct Tensor {
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> data;  // as many bytes as shape and dtype say
};

// RGB image -> the square of pixels that the network sees, of `in_channels` channels.
Image network_pixels(const Image& image, const Preprocessing& preprocessing);

// Shape of the network's input: (batch, height, width, channels) or (batch, channels, height, width).
std::vector<std::int64_t> input_shape(const Artifact& artifact);

// The input of the network: `pixels`, as often as one call takes images, normalized where the network does not do it.
Tensor to_tensor(const Image& pixels, const Artifact& artifact);

}  // namespace vitcli
