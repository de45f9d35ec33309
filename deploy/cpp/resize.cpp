// How Pillow resizes images of 8 bits. An output pixel is a weighted mean of the source pixels under the filter, which
// is stretched by the scale when an image shrinks, so that no source pixel is skipped. Width and height are resized one
// after the other, each rounded to 8 bits, so the order shows; weights are integers with 22 fractional bits.
#include "resize.hpp"

#include <algorithm>
#include <cmath>

namespace vitcli {
namespace {

constexpr int FRACTION_BITS = 22;
constexpr double PI = 3.14159265358979323846;

double triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }

// Keys' cubic convolution (1981) with a = -1/2.
double cubic(double x) {
  constexpr double A = -0.5;
  x = std::abs(x);
  if (x < 1) return ((A + 2) * x - (A + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * A;
  return 0;
}

double sinc(double x) { return x == 0 ? 1 : std::sin(x * PI) / (x * PI); }

double lanczos3(double x) { return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

struct Shape {
  double (*at)(double);
  double radius;
};

Shape shape_of(Filter filter) {
  switch (filter) {
    case Filter::bilinear: return {triangle, 1};
    case Filter::bicubic: return {cubic, 2};
    default: return {lanczos3, 3};
  }
}

// What one output pixel is made of: source pixels first, first + 1, …, each with a weight.
struct Blend {
  int first;
  std::vector<int> weights;
};

std::vector<Blend> blends(int in_length, int out_length, Filter filter) {
  const Shape shape = shape_of(filter);
  const double scale = static_cast<double>(in_length) / out_length;
  const double stretch = std::max(scale, 1.0);
  const double radius = shape.radius * stretch;
  std::vector<Blend> result(out_length);
  std::vector<double> weights;
  for (int i = 0; i < out_length; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - radius + 0.5));
    const int last = std::min(in_length, static_cast<int>(center + radius + 0.5));
    weights.clear();
    double total = 0;
    for (int x = first; x < last; ++x) {
      weights.push_back(shape.at((x - center + 0.5) * (1 / stretch)));
      total += weights.back();
    }
    result[i].first = first;
    for (const double weight : weights) {
      const double scaled = weight / total * (1 << FRACTION_BITS);
      result[i].weights.push_back(static_cast<int>(scaled + (scaled < 0 ? -0.5 : 0.5)));
    }
  }
  return result;
}

// The mean of pixels that lie `stride` bytes apart.
std::uint8_t blended(const std::uint8_t* source, std::size_t stride, const Blend& blend) {
  int sum = 1 << (FRACTION_BITS - 1);
  source += blend.first * stride;
  for (const int weight : blend.weights) {
    sum += *source * weight;
    source += stride;
  }
  return static_cast<std::uint8_t>(std::clamp(sum >> FRACTION_BITS, 0, 255));
}

Image resize_width(const Image& image, int width, Filter filter) {
  if (width == image.width) return image;
  const std::vector<Blend> columns = blends(image.width, width, filter);
  Image result(width, image.height, image.channels);
  std::uint8_t* out = result.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    for (const Blend& column : columns) {
      for (int c = 0; c < image.channels; ++c) *out++ = blended(image.at(0, y) + c, image.channels, column);
    }
  }
  return result;
}

Image resize_height(const Image& image, int height, Filter filter) {
  if (height == image.height) return image;
  const std::size_t row_bytes = std::size_t{1} * image.width * image.channels;
  Image result(image.width, height, image.channels);
  std::uint8_t* out = result.pixels.data();
  for (const Blend& row : blends(image.height, height, filter)) {
    for (std::size_t i = 0; i < row_bytes; ++i) *out++ = blended(image.pixels.data() + i, row_bytes, row);
  }
  return result;
}

// Pillow's rule since 13.0, found by trying: where many more rows than columns vanish, that is done first.
bool height_first(const Image& image, int width, int height) {
  const int rows = image.height - height, columns = image.width - width;
  return rows > 0 && rows > 2 * columns;
}

// The source pixel under the center of each output pixel. Pillow adds the step up, and so do its rounding errors.
std::vector<int> nearest_pixels(int in_length, int out_length) {
  const double step = static_cast<double>(in_length) / out_length;
  double center = step * 0.5;
  std::vector<int> result(out_length);
  for (int& pixel : result) {
    pixel = std::min(static_cast<int>(center), in_length - 1);
    center += step;
  }
  return result;
}

Image resize_nearest(const Image& image, int width, int height) {
  const std::vector<int> columns = nearest_pixels(image.width, width), rows = nearest_pixels(image.height, height);
  Image result(width, height, image.channels);
  std::uint8_t* out = result.pixels.data();
  for (const int y : rows) {
    for (const int x : columns) out = std::copy_n(image.at(x, y), image.channels, out);
  }
  return result;
}

}  // namespace

Image resize(const Image& image, int width, int height, Filter filter) {
  if (filter == Filter::nearest) return resize_nearest(image, width, height);
  if (height_first(image, width, height)) return resize_width(resize_height(image, height, filter), width, filter);
  return resize_height(resize_width(image, width, filter), height, filter);
}

}  // namespace vitcli
