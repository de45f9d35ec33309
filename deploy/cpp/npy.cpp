// NPY, the format of numpy: a header in the syntax of Python, and the values. (H, W), (H, W, C) or (C, H, W).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <regex>
#include <stdexcept>

#include "decoders.hpp"

namespace vitcli {
namespace {

const char* const UNKNOWN_TYPE = "its numbers have a type that is unknown to this program";

struct Header {
  char byte_order, kind;  // '<' or '>'; b, u, i or f
  std::size_t item_size;
  bool column_major;
  std::vector<std::size_t> shape;
  std::size_t begin;  // of the values
};

Header read_header(const Bytes& file) {
  if (file.size() < 12) throw std::runtime_error("the file is truncated");
  const bool is_long = file[6] > 1;
  std::size_t length = file[8] | file[9] << 8;
  if (is_long) length |= std::size_t{file[10]} << 16 | std::size_t{file[11]} << 24;
  const std::size_t start = is_long ? 12 : 10;
  if (file.size() - start < length) throw std::runtime_error("the file is truncated");
  const std::string text(file.begin() + start, file.begin() + start + length);
  const auto find = [&](const char* pattern) {
    std::smatch found;
    if (!std::regex_search(text, found, std::regex(pattern))) throw std::runtime_error("its header is not understood");
    return found;
  };
  const std::smatch type = find("'descr': *'([<>|])([buif])([0-9]{1,2})'");
  const std::string dimensions = find("'shape': *\\(([0-9, ]*)\\)")[1];
  Header header{type[1].str()[0], type[2].str()[0], std::stoul(type[3]),
                find("'fortran_order': *(True|False)")[1] == "True", {}, start + length};
  if (header.item_size < 1 || header.item_size > 8) throw std::runtime_error(UNKNOWN_TYPE);
  static const std::regex NUMBER("[0-9]{1,9}");
  for (std::sregex_iterator next(dimensions.begin(), dimensions.end(), NUMBER), end; next != end; ++next) {
    header.shape.push_back(std::stoul(next->str()));
  }
  return header;
}

template <typename T>
double number(const std::uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return static_cast<double>(value);
}

double half(const std::uint8_t* bytes) {
  const int bits = static_cast<int>(number<std::uint16_t>(bytes)), exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) size = mantissa ? NAN : INFINITY;
  return bits >> 15 ? -size : size;
}

// What Python makes of the type: 64 bits and unsigned 32 bits become floating point of 32 bits.
double read_number(const Header& header, std::array<std::uint8_t, 8> bytes) {
  if (header.byte_order == '>') std::reverse(bytes.begin(), bytes.begin() + header.item_size);
  const auto* in = bytes.data();
  switch (header.kind * 16 + static_cast<int>(header.item_size)) {
    case 'b' * 16 + 1: return in[0] ? 255 : 0;
    case 'u' * 16 + 1: return in[0];
    case 'u' * 16 + 2: return number<std::uint16_t>(in);
    case 'u' * 16 + 4: return static_cast<float>(number<std::uint32_t>(in));
    case 'u' * 16 + 8: return static_cast<float>(number<std::uint64_t>(in));
    case 'i' * 16 + 1: return number<std::int8_t>(in);
    case 'i' * 16 + 2: return number<std::int16_t>(in);
    case 'i' * 16 + 4: return number<std::int32_t>(in);
    case 'i' * 16 + 8: return static_cast<float>(number<std::int64_t>(in));
    case 'f' * 16 + 2: return half(in);
    case 'f' * 16 + 4: return number<float>(in);
    case 'f' * 16 + 8: return static_cast<float>(number<double>(in));
  }
  throw std::runtime_error(UNKNOWN_TYPE);
}

Values kind_of(const Header& header) {
  if (header.kind == 'u' && header.item_size == 2) return Values::bits16;
  return header.kind == 'i' && header.item_size <= 4 ? Values::integers : Values::reals;
}

}  // namespace

Decoded decode_npy(const Bytes& file) {
  const Header header = read_header(file);
  std::vector<std::size_t> shape = header.shape;
  if (shape.size() == 2) shape.push_back(1);
  if (shape.size() != 3) throw std::runtime_error("an image has two or three axes");
  // the distance in the file between neighbors on each axis, in numbers
  std::array<std::size_t, 3> step{shape[1] * shape[2], shape[2], 1};
  if (header.column_major) step = {1, shape[0], shape[0] * shape[1]};
  std::array<int, 3> axes{0, 1, 2};  // of height, width, channels
  if (header.shape.size() == 3 && shape[0] < std::min(shape[1], shape[2])) axes = {1, 2, 0};
  const auto [height, width, channels] =
      std::array<int, 3>{int(shape[axes[0]]), int(shape[axes[1]]), int(shape[axes[2]])};
  check_size(width, height);
  const std::size_t count = std::size_t{1} * width * height * channels;
  if (channels < 1 || (file.size() - header.begin) / header.item_size < count) {
    throw std::runtime_error("the file is truncated");
  }
  DeepImage deep{width, height, channels, kind_of(header), {}};
  deep.values.reserve(count);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < channels; ++channel) {
        const std::size_t place = y * step[axes[0]] + x * step[axes[1]] + channel * step[axes[2]];
        std::array<std::uint8_t, 8> bytes{};
        std::copy_n(&file[header.begin + place * header.item_size], header.item_size, bytes.begin());
        deep.values.push_back(read_number(header, bytes));
      }
    }
  }
  if (header.item_size > 1 || header.kind == 'i') return {{}, std::move(deep), {}};
  Image image(width, height, channels);
  std::copy(deep.values.begin(), deep.values.end(), image.pixels.begin());
  return {std::move(image), {}, {}};
}

}  // namespace vitcli
