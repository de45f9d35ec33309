#include "key_values.hpp"

#include <locale>
#include <sstream>

#include "sha256.hpp"

namespace vitcli {
namespace {

// The lines before the last one, `checksum=` and the SHA-256 of these lines.
std::string_view verified(std::string_view text) {
  constexpr std::string_view LAST = "checksum=";
  const std::size_t begin = text.rfind(LAST);
  if (begin == text.npos || (begin > 0 && text[begin - 1] != '\n')) throw KeyValueError("it has no checksum");
  const std::string_view lines = text.substr(0, begin);
  Sha256 sha256;
  sha256.update(lines.data(), lines.size());
  if (text.substr(begin + LAST.size()) != sha256.hex_digest() + "\n") throw KeyValueError("its checksum is another");
  return lines;
}

// `\\` is a backslash, `\n` and `\r` are line ends.
std::string unescaped(std::string_view value) {
  std::string result;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (value[i] != '\\') {
      result += value[i];
      continue;
    }
    const char letter = ++i < value.size() ? value[i] : '\0';
    if (letter != '\\' && letter != 'n' && letter != 'r') throw KeyValueError("it has an unknown escape");
    result += letter == 'n' ? '\n' : letter == 'r' ? '\r' : '\\';
  }
  return result;
}

// Independent of the locale, as a decimal comma would be another number.
double to_number(const std::string& key, const std::string& digits) {
  std::istringstream stream(digits);
  stream.imbue(std::locale::classic());
  double number = 0;
  if (!(stream >> number) || stream.peek() != std::istringstream::traits_type::eof()) {
    throw KeyValueError(key + " is not a number");
  }
  return number;
}

}  // namespace

KeyValues KeyValues::parse(std::string_view text) {
  KeyValues result;
  for (std::string_view rest = verified(text); !rest.empty();) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(line.size() + 1);
    const std::size_t equals = line.find('=');
    if (equals == 0 || equals == line.npos) throw KeyValueError("a line is not key=value");
    const std::string key(line.substr(0, equals));
    if (!result.values_.emplace(key, unescaped(line.substr(equals + 1))).second) {
      throw KeyValueError("the key " + key + " occurs more than once");
    }
  }
  return result;
}

const std::string& KeyValues::text(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) throw KeyValueError("the key " + key + " is missing");
  return found->second;
}

double KeyValues::number(const std::string& key) const { return to_number(key, text(key)); }

int KeyValues::integer(const std::string& key) const {
  const std::string& digits = text(key);
  const bool is_integer =
      !digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == digits.npos;
  if (!is_integer) throw KeyValueError(key + " is not an integer");
  return std::stoi(digits);
}

std::vector<double> KeyValues::numbers(const std::string& key) const {
  std::vector<double> result;
  std::istringstream list(text(key));
  for (std::string digits; std::getline(list, digits, ',');) result.push_back(to_number(key, digits));
  return result;
}

std::map<std::string, std::string> KeyValues::with_prefix(const std::string& prefix) const {
  std::map<std::string, std::string> result;
  for (const auto& [key, value] : values_) {
    if (key.compare(0, prefix.size(), prefix) == 0) result.emplace(key.substr(prefix.size()), value);
  }
  return result;
}

}  // namespace vitcli
