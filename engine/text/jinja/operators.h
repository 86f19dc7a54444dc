#pragma once
// The operators of expressions, as functions on values. Errors carry no line; the evaluator adds
// it.

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/jinja/value.h"

namespace nsa::jinja {

// `op` is one of + - ~ * // % == != < <= > >= "in" "not in".
absl::StatusOr<Value> ApplyBinary(const std::string& op, const Value& left, const Value& right);

// object.name; an absent key is undefined, an attribute of undefined an error.
absl::StatusOr<Value> GetAttribute(const Value& object, const std::string& name);

// object[index]; negative indices count from the end, absent ones are undefined.
absl::StatusOr<Value> GetItem(const Value& object, const Value& index);

// object[start : stop : step] of a list, with Python's rules.
struct SliceBounds {
  std::optional<int64_t> start, stop, step;
};
absl::StatusOr<Value> GetSlice(const Value& object, const SliceBounds& bounds);

}  // namespace nsa::jinja
