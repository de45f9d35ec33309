// SHA-256 (FIPS 180-4), by which a changed file is detected.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace vitcli {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);

  // The digest of everything that was given to update(), as 64 lower-case hex digits; the object cannot be used again.
  std::string hex_digest();

 private:
  void compress();

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_{};
  std::uint64_t num_bytes_ = 0;
};

}  // namespace vitcli
