#include "engine/text/jinja/operators.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/jinja/builtins.h"

namespace nsa::jinja {
namespace {

absl::Status DoesNotFit(const std::string& op, const Value& left, const Value& right) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", op, "' does not work on ", left.TypeName(), " and ", right.TypeName()));
}

absl::StatusOr<Value> Concatenate(const Value& left, const Value& right) {
  NSA_ASSIGN_OR_RETURN(std::string text, left.ToText());
  NSA_ASSIGN_OR_RETURN(const std::string tail, right.ToText());
  if (static_cast<int64_t>(text.size() + tail.size()) > kMaxStringBytes) {
    return absl::ResourceExhaustedError("builds a string over the limit");
  }
  text += tail;
  return Value(std::move(text));
}

// Python's // and %, which round toward minus infinity. Precondition: divisor is not 0 or -1.
int64_t FloorDivide(int64_t value, int64_t divisor) {
  const int64_t quotient = value / divisor;
  return value % divisor != 0 && (value < 0) != (divisor < 0) ? quotient - 1 : quotient;
}

absl::StatusOr<Value> Arithmetic(std::string_view op, int64_t left, int64_t right) {
  int64_t result = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(left, right, &result);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(left, right, &result);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(left, right, &result);
  } else if (right == 0) {
    return absl::InvalidArgumentError("division by zero");
  } else if (right == -1) {
    if (op == "//") overflows = __builtin_sub_overflow(int64_t{0}, left, &result);
  } else {
    const int64_t quotient = FloorDivide(left, right);
    result = op == "//" ? quotient : left - quotient * right;
  }
  if (overflows) return absl::InvalidArgumentError("a number is too large");
  return Value(result);
}

absl::StatusOr<Value> Compare(const std::string& op, const Value& left, const Value& right) {
  int order = 0;
  if (left.is_int() && right.is_int()) {
    order = left.as_int() < right.as_int() ? -1 : static_cast<int>(left.as_int() > right.as_int());
  } else if (left.is_string() && right.is_string()) {
    order = left.as_string().compare(right.as_string());
  } else {
    return DoesNotFit(op, left, right);
  }
  if (op == "<") return Value(order < 0);
  if (op == "<=") return Value(order <= 0);
  if (op == ">") return Value(order > 0);
  return Value(order >= 0);
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item) {
  if (container.is_list()) {
    const Value::List& list = container.as_list();
    return std::find(list.begin(), list.end(), item) != list.end();
  }
  if (item.is_string() && container.is_dict())
    return container.as_dict().contains(item.as_string());
  if (item.is_string() && container.is_string()) {
    return absl::StrContains(container.as_string(), item.as_string());
  }
  return DoesNotFit("in", item, container);
}

}  // namespace

absl::StatusOr<Value> ApplyBinary(const std::string& op, const Value& left, const Value& right) {
  if (op == "==") return Value(left == right);
  if (op == "!=") return Value(!(left == right));
  if (op == "~") return Concatenate(left, right);
  if (op == "in" || op == "not in") {
    NSA_ASSIGN_OR_RETURN(const bool contains, Contains(right, left));
    return Value(contains == (op == "in"));
  }
  if (op[0] == '<' || op[0] == '>') return Compare(op, left, right);
  if (op == "+" && left.is_string() && right.is_string()) return Concatenate(left, right);
  if (op == "+" && left.is_list() && right.is_list()) {
    Value::List joined = left.as_list();
    joined.insert(joined.end(), right.as_list().begin(), right.as_list().end());
    return Value(std::move(joined));
  }
  if (left.is_int() && right.is_int()) return Arithmetic(op, left.as_int(), right.as_int());
  return DoesNotFit(op, left, right);
}

absl::StatusOr<Value> GetAttribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) {
    return absl::InvalidArgumentError(absl::StrCat("'.", name, "' of an undefined value"));
  }
  if (!object.is_dict()) return Value();
  const auto it = object.as_dict().find(name);
  return it == object.as_dict().end() ? Value() : it->second;
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& index) {
  if (index.is_string()) return GetAttribute(object, index.as_string());
  if (!object.is_list() || !index.is_int()) return DoesNotFit("[]", object, index);
  const auto num_items = static_cast<int64_t>(object.as_list().size());
  const int64_t i = index.as_int() < 0 ? index.as_int() + num_items : index.as_int();
  return i < 0 || i >= num_items ? Value() : object.as_list()[i];
}

absl::StatusOr<Value> GetSlice(const Value& object, const SliceBounds& bounds) {
  if (!object.is_list()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a slice needs a list, got ", object.TypeName()));
  }
  const auto num_items = static_cast<int64_t>(object.as_list().size());
  const int64_t step = std::clamp(bounds.step.value_or(1), -num_items - 1, num_items + 1);
  if (step == 0) return absl::InvalidArgumentError("a slice's step is 0");
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? num_items : num_items - 1;
  const auto resolve = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound.has_value()) return absent;
    return std::clamp(*bound < 0 ? *bound + num_items : *bound, lowest, highest);
  };
  const int64_t start = resolve(bounds.start, step > 0 ? lowest : highest);
  const int64_t stop = resolve(bounds.stop, step > 0 ? highest : lowest);
  Value::List items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
    items.push_back(object.as_list()[i]);
  }
  return Value(std::move(items));
}

}  // namespace nsa::jinja
