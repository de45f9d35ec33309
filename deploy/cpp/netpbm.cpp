// Binary PGM (P5) and PPM (P6), of 8 or 16 bits.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <stdexcept>

#include "decoders.hpp"

namespace vitcli {
namespace {

class Header {
 public:
  explicit Header(const Bytes& file) : file_(file) {}

  int number() {
    while (std::isspace(peek()) || peek() == '#') {
      if (peek() == '#') skip_comment();
      ++next_;
    }
    int value = 0, num_digits = 0;
    for (; std::isdigit(peek()); ++next_) {
      if (++num_digits > 8) throw std::runtime_error("a number in its header is too long");
      value = 10 * value + (peek() - '0');
    }
    if (num_digits == 0 || !std::isspace(peek())) throw std::runtime_error("its header is damaged");
    return value;
  }

  std::size_t pixels_begin() const { return next_ + 1; }

 private:
  void skip_comment() {
    while (peek() != '\n' && peek() != '\r') ++next_;
  }

  std::uint8_t peek() const {
    if (next_ >= file_.size()) throw std::runtime_error("the file ends in its header");
    return file_[next_];
  }

  const Bytes& file_;
  std::size_t next_ = 2;
};

}  // namespace

Decoded decode_netpbm(const Bytes& file) {
  Header header(file);
  const int channels = file[1] == '6' ? 3 : 1;
  const int width = header.number(), height = header.number(), brightest = header.number();
  check_size(width, height);
  if (brightest < 1 || brightest > 65535) throw std::runtime_error("its brightest value is not 1 to 65535");

  Decoded decoded{Image(width, height, channels), {}, {}};
  const int num_bytes = brightest > 255 ? 2 : 1;
  if (file.size() < header.pixels_begin() + decoded.image.pixels.size() * num_bytes) {
    throw std::runtime_error("the file is truncated");
  }
  // As Pillow does: gray of 16 bits is scaled to 65535 and loses its low byte, everything else is scaled to 255.
  const bool deep = channels == 1 && num_bytes == 2;
  const std::uint8_t* in = &file[header.pixels_begin()];
  for (std::uint8_t& pixel : decoded.image.pixels) {
    const int stored = num_bytes == 2 ? in[0] << 8 | in[1] : in[0];
    const double share = static_cast<double>(std::min(stored, brightest)) / brightest;
    const int scaled = static_cast<int>(std::nearbyint(share * (deep ? 65535 : 255)));
    pixel = static_cast<std::uint8_t>(deep ? scaled >> 8 : scaled);
    in += num_bytes;
  }
  return decoded;
}

}  // namespace vitcli
