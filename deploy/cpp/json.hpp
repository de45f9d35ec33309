// A reader of JSON (RFC 8259) for the two small files of an artifact.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vitcli {

struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One value. The accessors throw JsonError where it is of another kind.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;

  static Json parse(std::string_view text);

  bool is_null() const { return kind_ == Kind::null; }
  double number() const;
  int integer() const;
  const std::string& string() const;
  const Array& array() const;
  const Object& object() const;
  const Json& at(const std::string& key) const;

 private:
  friend class JsonParser;
  enum class Kind { null, boolean, number, string, array, object };

  void require(Kind kind, const char* name) const;

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string string_;
  Array array_;
  Object object_;
};

}  // namespace vitcli
