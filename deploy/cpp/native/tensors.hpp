// The files of the native format: model.txt and model.safetensors. docs/native.md describes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "../key_values.hpp"

namespace vitcli::native {

enum class Type { f32, bf16, int8 };

// A matrix as it is stored: (rows, columns), row after row.
struct Matrix {
  Type type;
  int rows, columns;
  const std::uint8_t* bytes;  // need not be aligned

  float at(int row, int column) const;              // of f32 and bf16
  std::int8_t whole_at(int row, int column) const;  // of int8
};

// Everything that a network is made of. All functions throw KeyValueError for what is not there or does not fit.
class Network {
 public:
  // model.txt, and the file that it names. Throws BadUse.
  static Network read(const std::filesystem::path& description);

  const std::string& text(const std::string& key) const { return values_.text(key); }
  bool flag(const std::string& key) const;                                  // 0 or 1
  int size(const std::string& key, int least = 1, int most = 65536) const;  // an integer in this range
  std::vector<int> sizes(const std::string& key) const;                     // 0 to 65536, separated by commas
  std::vector<float> numbers(const std::string& key) const;
  float number(const std::string& key) const { return static_cast<float>(values_.number(key)); }

  const std::vector<int>& shape(const std::string& name) const;
  std::vector<float> floats(const std::string& name, const std::vector<int>& shape) const;
  Matrix matrix(const std::string& name, int rows, int columns) const;

 private:
  struct Place {
    std::string type;
    std::vector<int> shape;
    std::size_t first;
  };
  const Place& place(const std::string& name, const std::vector<int>& shape) const;

  KeyValues values_;
  std::map<std::string, Place> places_;
  std::vector<std::uint8_t> content_;
};

}  // namespace vitcli::native
