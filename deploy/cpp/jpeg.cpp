// JPEG by libjpeg(-turbo), with its default transform and upsampling, as in Pillow.
#include <csetjmp>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

#include "decoders.hpp"
// after <cstdio>, on whose names it relies
#include <jpeglib.h>
// after jpeglib.h
#include <jerror.h>

namespace vitcli {
namespace {

// libjpeg is C: it reports errors through callbacks, and the fatal one must not return.
struct ErrorManager : jpeg_error_mgr {
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void give_up(j_common_ptr jpeg) {
  auto* errors = static_cast<ErrorManager*>(jpeg->err);
  jpeg->err->format_message(jpeg, errors->message);
  std::longjmp(errors->escape, 1);
}

// libjpeg continues after damage and fills in what is missing. Pillow accepts damaged files, but not truncated ones.
void on_message(j_common_ptr jpeg, int level) {
  if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) give_up(jpeg);
}

class Decoder {
 public:
  Decoder() {
    jpeg_.err = jpeg_std_error(&errors_);
    errors_.error_exit = give_up;
    errors_.emit_message = on_message;
  }
  ~Decoder() { jpeg_destroy_decompress(&jpeg_); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  Decoded decode(const Bytes& file) {
    if (!read_header(file)) throw std::runtime_error(errors_.message);
    check_size(jpeg_.image_width, jpeg_.image_height);
    const int channels = jpeg_.num_components;
    if (channels != 1 && channels != 3 && channels != 4) {
      throw std::runtime_error("a JPEG of " + std::to_string(channels) + " components");
    }
    Decoded decoded;
    collect_exif(decoded);
    decoded.image = Image(jpeg_.image_width, jpeg_.image_height, channels);
    if (!read_pixels(decoded.image)) throw std::runtime_error(errors_.message);
    if (channels == 4) decoded.image = from_inverted_cmyk(decoded.image);
    return decoded;
  }

 private:
  // No object with a destructor may be created in these two functions: longjmp would skip the destructor.
  bool read_header(const Bytes& file) {
    if (setjmp(errors_.escape)) return false;
    jpeg_create_decompress(&jpeg_);
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_mem_src(&jpeg_, file.data(), file.size());
    jpeg_read_header(&jpeg_, TRUE);
    return true;
  }

  bool read_pixels(Image& image) {
    if (setjmp(errors_.escape)) return false;
    constexpr J_COLOR_SPACE SPACES[] = {JCS_UNKNOWN, JCS_GRAYSCALE, JCS_UNKNOWN, JCS_RGB, JCS_CMYK};
    jpeg_.out_color_space = SPACES[image.channels];
    jpeg_start_decompress(&jpeg_);
    while (jpeg_.output_scanline < jpeg_.output_height) {
      JSAMPROW row = image.at(0, static_cast<int>(jpeg_.output_scanline));
      jpeg_read_scanlines(&jpeg_, &row, 1);
    }
    jpeg_finish_decompress(&jpeg_);
    return true;
  }

  // EXIF may be split over several markers.
  void collect_exif(Decoded& decoded) const {
    constexpr std::string_view EXIF("Exif\0\0", 6);
    for (jpeg_saved_marker_ptr marker = jpeg_.marker_list; marker != nullptr; marker = marker->next) {
      const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (data.substr(0, EXIF.size()) == EXIF) {
        decoded.exif.insert(decoded.exif.end(), data.begin() + EXIF.size(), data.end());
      }
    }
  }

  // CMYK is stored inverted, as Photoshop does; Pillow assumes it for all files. 255 is no ink.
  static Image from_inverted_cmyk(const Image& cmyk) {
    Image rgb(cmyk.width, cmyk.height, 3);
    const std::uint8_t* in = cmyk.pixels.data();
    for (std::size_t i = 0; i < rgb.pixels.size(); i += 3, in += 4) {
      for (int c = 0; c < 3; ++c) {
        const int product = (255 - in[c]) * in[3] + 128;
        const int quotient = (product + (product >> 8)) >> 8;  // product / 255, rounded
        rgb.pixels[i + c] = static_cast<std::uint8_t>(in[3] - quotient);
      }
    }
    return rgb;
  }

  ErrorManager errors_{};
  jpeg_decompress_struct jpeg_{};
};

}  // namespace

Decoded decode_jpeg(const Bytes& file) { return Decoder().decode(file); }

}  // namespace vitcli
