#include "json.hpp"

#include <cmath>
#include <cstdlib>

namespace vitcli {

constexpr int DEEPEST = 64;  // nested lists and objects; a file made to break us ends here, not with the stack

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = this->value(0);
    skip_space();
    if (next_ != text_.size()) fail("something follows the end");
    return value;
  }

 private:
  Json value(int depth) {
    if (depth > DEEPEST) fail("nested too deeply");
    skip_space();
    Json json;
    switch (peek()) {
      case '{':
        json.kind_ = Json::Kind::object;
        json.object_ = object(depth);
        break;
      case '[':
        json.kind_ = Json::Kind::array;
        json.array_ = array(depth);
        break;
      case '"':
        json.kind_ = Json::Kind::string;
        json.string_ = string();
        break;
      default:
        if (accept_word("null")) break;
        if (accept_word("true") || accept_word("false")) {  // no boolean is asked for
          json.kind_ = Json::Kind::boolean;
          break;
        }
        json.kind_ = Json::Kind::number;
        json.number_ = number();
    }
    return json;
  }

  Json::Object object(int depth) {
    Json::Object members;
    expect('{');
    if (accept('}')) return members;
    do {
      skip_space();
      std::string key = string();
      expect(':');
      if (!members.emplace(key, value(depth + 1)).second) fail("the key \"" + key + "\" twice");
    } while (accept(','));
    expect('}');
    return members;
  }

  Json::Array array(int depth) {
    Json::Array items;
    expect('[');
    if (accept(']')) return items;
    do {
      items.push_back(value(depth + 1));
    } while (accept(','));
    expect(']');
    return items;
  }

  std::string string() {
    std::string result;
    if (peek() != '"') fail("expected a string");
    for (++next_; peek() != '"'; ++next_) {
      if (static_cast<unsigned char>(peek()) < 0x20) fail("a control character in a string");
      if (peek() != '\\') {
        result += peek();
        continue;
      }
      ++next_;
      constexpr std::string_view LETTERS = "\"\\/bfnrt", MEANINGS = "\"\\/\b\f\n\r\t";
      if (peek() == 'u') {
        append_utf8(result, code_point());
      } else if (const auto which = LETTERS.find(peek()); which != LETTERS.npos) {
        result += MEANINGS[which];
      } else {
        fail("an unknown escape");
      }
    }
    ++next_;
    return result;
  }

  // After a `\`: uXXXX, or the two halves uD8XX\uDCXX of a character beyond them. Stops at the last digit.
  unsigned code_point() {
    const unsigned high = hex4();
    if (high < 0xD800 || high > 0xDFFF) return high;
    if (text_.substr(next_ + 1, 2) != "\\u") fail("half of a character");
    next_ += 2;
    const unsigned low = hex4();
    if (high > 0xDBFF || low < 0xDC00 || low > 0xDFFF) fail("half of a character");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  unsigned hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i) {
      ++next_;
      const auto digit = std::string_view("0123456789abcdefABCDEF").find(peek());
      if (digit == std::string_view::npos) fail("expected four hexadecimal digits");
      code = code << 4 | static_cast<unsigned>(digit < 16 ? digit : digit - 6);
    }
    return code;
  }

  static void append_utf8(std::string& text, unsigned code) {
    if (code < 0x80) {
      text += static_cast<char>(code);
      return;
    }
    const int num_more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr unsigned LEADS[] = {0, 0xC0, 0xE0, 0xF0};
    text += static_cast<char>(LEADS[num_more] | code >> (6 * num_more));
    for (int i = num_more - 1; i >= 0; --i) text += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
  }

  double number() {
    const std::size_t length = text_.substr(next_).find_first_not_of("+-.0123456789eE");
    const std::string digits(text_.substr(next_, length));
    char* end = nullptr;
    const double number = std::strtod(digits.c_str(), &end);
    if (digits.empty() || *end != '\0' || !std::isfinite(number)) fail("expected a value");
    next_ += digits.size();
    return number;
  }

  bool accept_word(std::string_view word) {
    if (text_.substr(next_, word.size()) != word) return false;
    next_ += word.size();
    return true;
  }

  char peek() const {
    if (next_ >= text_.size()) fail("the file ends too early");
    return text_[next_];
  }

  bool accept(char wanted) {
    skip_space();
    if (peek() != wanted) return false;
    ++next_;
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) fail(std::string("expected ") + wanted);
  }

  void skip_space() {
    while (next_ < text_.size() && std::string_view(" \t\r\n").find(text_[next_]) != std::string_view::npos) ++next_;
  }

  [[noreturn]] void fail(const std::string& what) const { throw JsonError(what + " at byte " + std::to_string(next_)); }

  std::string_view text_;
  std::size_t next_ = 0;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

void Json::require(Kind kind, const char* name) const {
  if (kind_ != kind) throw JsonError(std::string("expected ") + name);
}

double Json::number() const {
  require(Kind::number, "a number");
  return number_;
}

int Json::integer() const {
  const double value = number();
  if (value != std::floor(value) || std::abs(value) > 2147483647.0) throw JsonError("expected an integer");
  return static_cast<int>(value);
}

const std::string& Json::string() const {
  require(Kind::string, "a string");
  return string_;
}

const Json::Array& Json::array() const {
  require(Kind::array, "a list");
  return array_;
}

const Json::Object& Json::object() const {
  require(Kind::object, "an object");
  return object_;
}

const Json& Json::at(const std::string& key) const {
  const Object& members = object();
  const auto found = members.find(key);
  if (found == members.end()) throw JsonError("the key \"" + key + "\" is missing");
  return found->second;
}

}  // namespace vitcli
