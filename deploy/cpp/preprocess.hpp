// How an image becomes the input of the network: `build_eval_transform` of vitcli/data/eval_transform.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "artifact.hpp"
#include "image.hpp"

namespace vitcli {

struct Tensor {
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> data;  // its size follows from shape and dtype
};

// RGB image -> the height x width pixels that the network sees, of `in_channels` channels.
Image network_pixels(const Image& image, const Preprocessing& preprocessing);

// Shape of the network's input: (batch, height, width, channels) or (batch, channels, height, width).
std::vector<std::int64_t> input_shape(const Artifact& artifact);

// The input of the network: `pixels`, repeated for the batch size, normalized if the network does not do it.
Tensor to_tensor(const Image& pixels, const Artifact& artifact);

// The same from a file. Throws BadImage.
Tensor read_input(const std::filesystem::path& image, const Artifact& artifact);

}  // namespace vitcli
