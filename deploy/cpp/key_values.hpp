// artifact.txt: lines of key=value, the last of which is a checksum of the others. README.md describes the format.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vitcli {

struct KeyValueError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The values by their keys. All functions throw KeyValueError: for a damaged text, a missing key, a value of another
// type.
class KeyValues {
 public:
  static KeyValues parse(std::string_view text);

  const std::string& text(const std::string& key) const;
  double number(const std::string& key) const;
  int integer(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;  // separated by commas

  // What follows `prefix` in the keys that begin with it, and their values.
  std::map<std::string, std::string> with_prefix(const std::string& prefix) const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace vitcli
