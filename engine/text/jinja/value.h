#pragma once
// Values of a template: what variables hold and expressions give.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa::jinja {

struct Undefined {};
struct None {};

class Value {
 public:
  using List = std::vector<Value>;
  using Dict = std::map<std::string, Value>;

  Value() : data_(Undefined{}) {}
  explicit Value(None none) : data_(none) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(std::string value) : data_(std::move(value)) {}
  explicit Value(List list) : data_(std::make_shared<List>(std::move(list))) {}
  explicit Value(Dict dict) : data_(std::make_shared<Dict>(std::move(dict))) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_string() const { return std::holds_alternative<std::string>(data_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<List>>(data_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Dict>>(data_); }

  // Preconditions: the matching is_...(). Lists and dicts are shared by copies of a Value; only
  // namespace() objects are ever written to.
  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const { return std::get<int64_t>(data_); }
  const std::string& as_string() const { return std::get<std::string>(data_); }
  const List& as_list() const { return *std::get<std::shared_ptr<List>>(data_); }
  Dict& as_dict() const { return *std::get<std::shared_ptr<Dict>>(data_); }

  // Python's truth value: false for undefined, none, false, 0 and everything empty.
  bool Truthy() const;
  // "a string", "undefined", ...: for messages.
  std::string TypeName() const;
  // How `{{ value }}` prints; INVALID_ARGUMENT for lists and dicts.
  absl::StatusOr<std::string> ToText() const;
  // JSON as Python's json.dumps writes it, non-ASCII characters kept; INVALID_ARGUMENT where a part
  // is undefined.
  absl::StatusOr<std::string> ToJson() const;

  friend bool operator==(const Value& a, const Value& b);

 private:
  std::variant<Undefined, None, bool, int64_t, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>>
      data_;
};

}  // namespace nsa::jinja
