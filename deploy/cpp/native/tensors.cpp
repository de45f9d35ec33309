#include "tensors.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "../errors.hpp"

namespace vitcli::native {
namespace {

namespace fs = std::filesystem;

constexpr int VERSION = 1;  // of model.txt

std::ifstream open(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!fs::is_regular_file(path) || !file) throw KeyValueError("cannot read " + path.string());
  return file;
}

// Digits only, and not too many for 64 bits.
std::uint64_t whole_number(const std::string& key, const std::string& digits) {
  const bool is_number =
      !digits.empty() && digits.size() <= 15 && digits.find_first_not_of("0123456789") == digits.npos;
  if (!is_number) throw KeyValueError(key + " is not a whole number");
  return std::stoull(digits);
}

std::size_t bytes_of(const std::string& type) {
  if (type == "F32") return 4;
  if (type == "BF16") return 2;
  if (type == "I8") return 1;
  throw KeyValueError("tensors of type '" + type + "' are unknown to this program");
}

std::vector<int> sides(const std::string& key, const std::string& shape) {
  std::vector<int> result;
  std::istringstream words(shape);
  for (std::string word; std::getline(words, word, 'x');) {
    const std::uint64_t side = whole_number(key, word);
    if (side < 1 || side > (1 << 28)) throw KeyValueError(key + " has an impossible shape");
    result.push_back(static_cast<int>(side));
  }
  if (result.empty() || result.size() > 3) throw KeyValueError(key + " has an impossible shape");
  return result;
}

}  // namespace

float Matrix::at(int row, int column) const {
  const std::size_t index = std::size_t{1} * row * columns + column;
  std::uint32_t bits = 0;
  if (type == Type::f32) {
    std::memcpy(&bits, bytes + 4 * index, 4);
  } else {
    bits = std::uint32_t{bytes[2 * index]} << 16 | std::uint32_t{bytes[2 * index + 1]} << 24;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

std::int8_t Matrix::whole_at(int row, int column) const {
  return static_cast<std::int8_t>(bytes[std::size_t{1} * row * columns + column]);
}

Network Network::read(const fs::path& description) {
  std::ifstream file = open(description);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Network network;
  network.values_ = KeyValues::parse(text);
  if (network.values_.integer("native_version") != VERSION) {
    throw KeyValueError("it has version " + network.text("native_version") + ", and this program reads version " +
                        std::to_string(VERSION));
  }
  const std::string name = network.text("weights");
  if (fs::path(name).filename() != name) throw KeyValueError("'" + name + "' is not the name of a file");
  const fs::path weights = description.parent_path() / name;
  std::ifstream content = open(weights);
  const std::uint64_t size = fs::file_size(weights);
  if (size != whole_number("weights_bytes", network.text("weights_bytes"))) {
    throw KeyValueError(weights.string() + " has another size");
  }
  network.content_.resize(size);
  content.read(reinterpret_cast<char*>(network.content_.data()), static_cast<std::streamsize>(size));
  if (!content) throw KeyValueError("cannot read " + weights.string());

  for (const auto& [key, value] : network.values_.with_prefix("tensor.")) {
    std::istringstream words(value);
    std::string type, shape, first, bytes, more;
    if (!(words >> type >> shape >> first >> bytes) || words >> more) throw KeyValueError(key + " is not a tensor");
    const Place place{type, sides(key, shape), static_cast<std::size_t>(whole_number(key, first))};
    std::uint64_t count = whole_number(key, bytes), expected = bytes_of(type);
    for (const int side : place.shape) {
      expected *= static_cast<std::uint64_t>(side);
      if (expected > size) throw KeyValueError(key + " does not fit into the file");
    }
    if (count != expected || place.first > size || count > size - place.first) {
      throw KeyValueError(key + " does not fit into the file");
    }
    network.places_.emplace(key, place);
  }
  return network;
}

bool Network::flag(const std::string& key) const { return size(key, 0, 1) == 1; }

int Network::size(const std::string& key, int least, int most) const {
  const int value = values_.integer(key);
  if (value < least || value > most) {
    throw KeyValueError(key + " is not " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

std::vector<int> Network::sizes(const std::string& key) const {
  std::vector<int> result;
  for (const double value : values_.numbers(key)) {
    if (!(value >= 0 && value <= 65536 && value == static_cast<int>(value)))
      throw KeyValueError(key + " is no list of sizes");
    result.push_back(static_cast<int>(value));
  }
  return result;
}

std::vector<float> Network::numbers(const std::string& key) const {
  const std::vector<double> values = values_.numbers(key);
  return {values.begin(), values.end()};
}

const std::vector<int>& Network::shape(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw KeyValueError("the tensor " + name + " is missing");
  return found->second.shape;
}

const Network::Place& Network::place(const std::string& name, const std::vector<int>& shape) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw KeyValueError("the tensor " + name + " is missing");
  if (found->second.shape != shape) throw KeyValueError("the tensor " + name + " has another shape than it must have");
  return found->second;
}

std::vector<float> Network::floats(const std::string& name, const std::vector<int>& shape) const {
  const Place& found = place(name, shape);
  if (found.type != "F32") throw KeyValueError("the tensor " + name + " is not F32");
  std::size_t count = 1;
  for (const int side : shape) count *= static_cast<std::size_t>(side);
  std::vector<float> values(count);
  std::memcpy(values.data(), content_.data() + found.first, 4 * count);
  return values;
}

Matrix Network::matrix(const std::string& name, int rows, int columns) const {
  const Place& found = place(name, {rows, columns});
  const Type type = found.type == "F32" ? Type::f32 : found.type == "BF16" ? Type::bf16 : Type::int8;
  return {type, rows, columns, content_.data() + found.first};
}

}  // namespace vitcli::native
