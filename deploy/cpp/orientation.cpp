// How the camera was held: tag 274 of the first directory of EXIF.
#include "decoders.hpp"

namespace vitcli {
namespace {

constexpr std::uint32_t ORIENTATION = 274, SHORT = 3, LONG = 4;

class Tiff {
 public:
  explicit Tiff(const Bytes& bytes) : bytes_(bytes), big_endian_(bytes.size() > 0 && bytes[0] == 'M') {}

  bool is_valid() const {
    const bool ordered = bytes_.size() >= 8 && bytes_[0] == bytes_[1] && (bytes_[0] == 'I' || bytes_[0] == 'M');
    return ordered && number(2, 2) == 42;
  }

  // The unsigned integer of `size` bytes at `offset`; 0 beyond the end.
  std::uint32_t number(std::size_t offset, int size) const {
    if (offset + size > bytes_.size()) return 0;
    std::uint32_t value = 0;
    for (int i = 0; i < size; ++i) value = value << 8 | bytes_[offset + (big_endian_ ? i : size - 1 - i)];
    return value;
  }

 private:
  const Bytes& bytes_;
  bool big_endian_;
};

int exif_orientation(const Tiff& tiff) {
  const std::size_t directory = tiff.number(4, 4);
  const std::uint32_t num_entries = tiff.number(directory, 2);
  for (std::uint32_t i = 0; i < num_entries; ++i) {
    const std::size_t entry = directory + 2 + std::size_t{12} * i;
    if (tiff.number(entry, 2) != ORIENTATION) continue;
    const std::uint32_t type = tiff.number(entry + 2, 2), count = tiff.number(entry + 4, 4);
    if (count == 1 && type == SHORT) return tiff.number(entry + 8, 2);
    if (count == 1 && type == LONG) return tiff.number(entry + 8, 4);
    return 1;
  }
  return 1;
}

}  // namespace

int orientation(const Bytes& exif) {
  const Tiff tiff(exif);
  const int value = tiff.is_valid() ? exif_orientation(tiff) : 1;
  return 2 <= value && value <= 8 ? value : 1;
}

}  // namespace vitcli
