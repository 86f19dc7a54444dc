#pragma once
// The methods, filters and tests that templates may use, as tables.

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/value.h"

namespace nsa::jinja {

// Longest string, in bytes, that any step of a template may build.
inline constexpr int64_t kMaxStringBytes = 8 << 20;

using Arguments = std::vector<Value>;

// A method or filter: `self` is the value in front of the dot or bar.
struct Builtin {
  std::string_view name;
  int min_arguments;
  int max_arguments;
  absl::StatusOr<Value> (*apply)(const Value& self, const Arguments& arguments);
};

struct Test {
  std::string_view name;
  bool (*holds)(const Value& value);
};

// Null if there is none of that name.
const Builtin* FindMethod(std::string_view name);
const Builtin* FindFilter(std::string_view name);
const Test* FindTest(std::string_view name);

}  // namespace nsa::jinja
