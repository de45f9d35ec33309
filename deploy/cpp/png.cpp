// PNG by libpng: gray or RGB with transparency, of 8 or 16 bits; other depths and palettes become 8 bits.
#include <png.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "decoders.hpp"

namespace vitcli {
namespace {

struct Source {
  const Bytes& file;
  std::size_t next = 0;
};

// libpng is C: it reports errors through callbacks, and the fatal one must not return.
[[noreturn]] void give_up(png_structp png, png_const_charp message) {
  auto& kept = *static_cast<std::string*>(png_get_error_ptr(png));
  kept = message;
  png_longjmp(png, 1);
}

void ignore(png_structp, png_const_charp) {}

void read(png_structp png, png_bytep out, std::size_t size) {
  auto& source = *static_cast<Source*>(png_get_io_ptr(png));
  if (size > source.file.size() - source.next) png_error(png, "the file is truncated");
  std::memcpy(out, source.file.data() + source.next, size);
  source.next += size;
}

class Decoder {
 public:
  explicit Decoder(const Bytes& file) : source_{file} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message_, give_up, ignore);
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) throw std::runtime_error("libpng cannot be used: " + message_);
  }
  ~Decoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  Decoded decode() {
    if (!read_header()) throw std::runtime_error(message_);
    check_size(png_get_image_width(png_, info_), png_get_image_height(png_, info_));
    const auto width = static_cast<int>(png_get_image_width(png_, info_));
    const auto height = static_cast<int>(png_get_image_height(png_, info_));
    const int type = png_get_color_type(png_, info_), depth = png_get_bit_depth(png_, info_) / 8;
    const int channels = (type & PNG_COLOR_MASK_COLOR ? 3 : 1) + (type & PNG_COLOR_MASK_ALPHA ? 1 : 0);
    Decoded decoded{Image(width * std::max(depth, 1), height, channels), {}, {}};
    std::vector<png_bytep> rows;
    for (int y = 0; y < height; ++y) rows.push_back(decoded.image.at(0, y));
    if (!read_pixels(rows)) throw std::runtime_error(message_);
    read_rest();
    if (depth == 2) decoded.deep = of_16_bits(decoded.image);
    collect_exif(decoded);
    return decoded;
  }

 private:
  // No object with a destructor may be created in these three functions: longjmp would skip the destructor.
  bool read_header() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_read_fn(png_, &source_, read);
    png_read_info(png_, info_);
    return true;
  }

  bool read_pixels(std::vector<png_bytep>& rows) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_palette_to_rgb(png_);
    const bool has_alpha = png_get_color_type(png_, info_) & PNG_COLOR_MASK_ALPHA;
    if (!has_alpha) png_set_strip_alpha(png_);  // a transparent color is not a channel, as in Pillow
    png_set_expand_gray_1_2_4_to_8(png_);
    png_read_image(png_, rows.data());
    return true;
  }

  // Metadata may follow the pixels. Damage there is ignored, as the image is complete.
  void read_rest() {
    if (setjmp(png_jmpbuf(png_))) return;
    png_read_end(png_, info_);
  }

  // Each value is two bytes, the upper one first.
  static DeepImage of_16_bits(const Image& bytes) {
    DeepImage deep{bytes.width / 2, bytes.height, bytes.channels, Values::bits16, {}};
    deep.values.reserve(bytes.pixels.size() / 2);
    for (std::size_t i = 0; i < bytes.pixels.size(); i += 2) {
      deep.values.push_back(bytes.pixels[i] << 8 | bytes.pixels[i + 1]);
    }
    return deep;
  }

  void collect_exif(Decoded& decoded) {
    png_uint_32 exif_size = 0;
    png_bytep exif = nullptr;
    if (png_get_eXIf_1(png_, info_, &exif_size, &exif)) decoded.exif.assign(exif, exif + exif_size);
  }

  Source source_;
  std::string message_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Decoded decode_png(const Bytes& file) { return Decoder(file).decode(); }

}  // namespace vitcli
