#include "preprocess.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace vitcli {
namespace {

constexpr int LONGEST_ASPECT = 16;

Image crop(const Image& image, int left, int top, int width, int height) {
  Image result(width, height, image.channels);
  for (int y = 0; y < height; ++y) {
    std::copy_n(image.at(left, top + y), std::size_t{1} * width * image.channels, result.at(0, y));
  }
  return result;
}

// The middle of an image that is longer than 16:1; the whole image, resized, might not fit in memory.
Image limit_aspect(const Image& image) {
  const auto [shorter, longer] = std::minmax(image.width, image.height);
  const int cut = (longer - std::min<std::int64_t>(longer, std::int64_t{LONGEST_ASPECT} * shorter)) / 2;
  if (cut == 0) return image;
  return image.width > image.height ? crop(image, cut, 0, image.width - 2 * cut, image.height)
                                    : crop(image, 0, cut, image.width, image.height - 2 * cut);
}

Image resize_shorter(const Image& image, int shorter, Filter filter) {
  const auto [side, longer_side] = std::minmax(image.width, image.height);
  const int longer = static_cast<int>(std::int64_t{shorter} * longer_side / side);
  return image.width <= image.height ? resize(image, shorter, longer, filter) : resize(image, longer, shorter, filter);
}

// nearbyint rounds half to even, as Python does.
int rounded(double value) { return static_cast<int>(std::nearbyint(value)); }

Image resize_to_cover(const Image& image, int height, int width, Filter filter) {
  if (height == width) return resize_shorter(image, height, filter);
  const double ratio = std::min(static_cast<double>(image.height) / height, static_cast<double>(image.width) / width);
  return resize(image, rounded(image.width / ratio), rounded(image.height / ratio), filter);
}

Image resize_into(const Image& image, int height, int width, Filter filter) {
  const double ratio = std::max(static_cast<double>(image.height) / height, static_cast<double>(image.width) / width);
  return resize(image, std::max(rounded(image.width / ratio), 1), std::max(rounded(image.height / ratio), 1), filter);
}

// The image in the middle of at least height x width pixels of the color `border`.
Image with_border(const Image& image, int height, int width, const std::vector<float>& border) {
  Image canvas(std::max(image.width, width), std::max(image.height, height), image.channels);
  for (std::size_t i = 0; i < canvas.pixels.size(); ++i) {
    canvas.pixels[i] = static_cast<std::uint8_t>(border[i % image.channels]);
  }
  const int left = (canvas.width - image.width) / 2, top = (canvas.height - image.height) / 2;
  for (int y = 0; y < image.height; ++y) {
    std::copy_n(image.at(0, y), std::size_t{1} * image.width * image.channels, canvas.at(left, top + y));
  }
  return canvas;
}

Image center_crop(const Image& image, int height, int width) {
  const int left = rounded((image.width - width) / 2.0), top = rounded((image.height - height) / 2.0);
  return crop(image, left, top, width, height);
}

// The image, resized in the way of the crop mode: at least as large as the input.
Image scaled(const Image& image, const Preprocessing& to) {
  const int height = static_cast<int>(std::floor(to.height / to.crop_pct));
  const int width = static_cast<int>(std::floor(to.width / to.crop_pct));
  switch (to.crop_mode) {
    case CropMode::squash:
      return resize(image, width, height, to.filter);
    case CropMode::border:
      return with_border(resize_into(image, height, width, to.filter), to.height, to.width, to.border);
    case CropMode::center:
      break;
  }
  return resize_to_cover(limit_aspect(image), height, width, to.filter);
}

}  // namespace

Image network_pixels(const Image& image, const Preprocessing& preprocessing) {
  return center_crop(scaled(image, preprocessing), preprocessing.height, preprocessing.width);
}

std::vector<std::int64_t> input_shape(const Artifact& artifact) {
  const auto& [height, width, channels] = std::array<std::int64_t, 3>{
      artifact.preprocessing.height, artifact.preprocessing.width, artifact.preprocessing.format.channels};
  if (artifact.layout == Layout::nhwc) return {artifact.batch, height, width, channels};
  return {artifact.batch, channels, height, width};
}

Tensor to_tensor(const Image& pixels, const Artifact& artifact) {
  const std::vector<float>&mean = artifact.preprocessing.mean, &std = artifact.preprocessing.std;
  std::vector<std::uint8_t> one_image;
  const auto append = [&](int x, int y, int c) {
    const std::uint8_t pixel = pixels.at(x, y)[c];
    const float normalized = (pixel / 255.0f - mean[c]) / std[c];
    const auto* bytes = artifact.dtype == Dtype::uint8 ? &pixel : reinterpret_cast<const std::uint8_t*>(&normalized);
    one_image.insert(one_image.end(), bytes, bytes + (artifact.dtype == Dtype::uint8 ? 1 : sizeof(float)));
  };
  if (artifact.layout == Layout::nhwc) {
    for (int y = 0; y < pixels.height; ++y)
      for (int x = 0; x < pixels.width; ++x)
        for (int c = 0; c < pixels.channels; ++c) append(x, y, c);
  } else {
    for (int c = 0; c < pixels.channels; ++c)
      for (int y = 0; y < pixels.height; ++y)
        for (int x = 0; x < pixels.width; ++x) append(x, y, c);
  }
  Tensor tensor{artifact.dtype, input_shape(artifact), {}};
  for (int i = 0; i < artifact.batch; ++i) tensor.data.insert(tensor.data.end(), one_image.begin(), one_image.end());
  return tensor;
}

Tensor read_input(const std::filesystem::path& image, const Artifact& artifact) {
  const Preprocessing& how = artifact.preprocessing;
  return to_tensor(network_pixels(read_image(image, how.format), how), artifact);
}

}  // namespace vitcli
