// Binary PGM (P5) and PPM (P6) of 8 bits.
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
  if (brightest < 1 || brightest > 255) throw std::runtime_error("its brightest value is not 1 to 255");

  Decoded decoded{Image(width, height, channels), {}, {}};
  if (file.size() < header.pixels_begin() + decoded.image.pixels.size()) {
    throw std::runtime_error("the file is truncated");
  }
  const std::uint8_t* in = &file[header.pixels_begin()];
  for (std::uint8_t& pixel : decoded.image.pixels) {
    const double share = static_cast<double>(std::min<int>(*in++, brightest)) / brightest;
    pixel = static_cast<std::uint8_t>(std::nearbyint(share * 255));
  }
  return decoded;
}

}  // namespace vitcli
