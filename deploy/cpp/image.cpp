#include "image.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>

#include "decoders.hpp"
#include "errors.hpp"
#include "pixel_format.hpp"

namespace vitcli {
namespace {

constexpr std::int64_t MOST_PIXELS = 67'108'864;  // the default of max_image_pixels

Bytes read_file(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) throw std::runtime_error("no such file");
  if (!std::filesystem::is_regular_file(path)) throw std::runtime_error("not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("it cannot be opened");
  Bytes bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.empty()) throw std::runtime_error("the file is empty");
  return bytes;
}

bool begins(const Bytes& file, std::string_view magic) {
  return std::string_view(reinterpret_cast<const char*>(file.data()), file.size()).substr(0, magic.size()) == magic;
}

// By the content, not by the name of the file.
Decoded decode(const Bytes& file) {
  if (begins(file, "\xFF\xD8\xFF")) {
    if constexpr (WITH_JPEG) return decode_jpeg(file);
    throw std::runtime_error("this program was built without libjpeg");
  }
  if (begins(file, "\x89PNG\r\n\x1A\n")) {
    if constexpr (WITH_PNG) return decode_png(file);
    throw std::runtime_error("this program was built without libpng");
  }
  if (begins(file, "P5") || begins(file, "P6")) return decode_netpbm(file);
  if (begins(file, "\x93NUMPY")) return decode_npy(file);
  throw std::runtime_error("not a JPEG, PNG, NPY, or binary PPM or PGM file");
}

// TIFF 6.0, tag 274: which side of the stored image is the top, and which the left.
Image upright(const Image& image, int orientation) {
  if (orientation == 1) return image;
  const bool swapped = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image result(swapped ? image.height : image.width, swapped ? image.width : image.height, image.channels);
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const int column = swapped ? y : x, row = swapped ? x : y;
      const std::uint8_t* source =
          image.at(from_right ? image.width - 1 - column : column, from_bottom ? image.height - 1 - row : row);
      std::copy_n(source, image.channels, result.at(x, y));
    }
  }
  return result;
}

}  // namespace

void check_size(std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1) throw std::runtime_error("it has no pixels");
  if (width * height > MOST_PIXELS) {
    throw std::runtime_error(std::to_string(width) + " x " + std::to_string(height) + " pixels are more than " +
                             std::to_string(MOST_PIXELS));
  }
}

Image read_image(const std::filesystem::path& path, const PixelFormat& format) try {
  const Decoded decoded = decode(read_file(path));
  const Image image = decoded.deep ? in_8_bits(*decoded.deep, format.pixel_range) : decoded.image;
  return upright(to_channels(image, format.channels), orientation(decoded.exif));
} catch (const std::runtime_error& error) {
  throw BadImage("cannot read the image '" + path.string() + "': " + error.what());
}

}  // namespace vitcli
