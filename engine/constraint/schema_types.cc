// SchemaCompiler's part that knows the types and their own keywords.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/constraint/regex.h"
#include "engine/constraint/schema_compiler.h"
#include "engine/constraint/schema_keywords.h"
#include "engine/constraint/string_formats.h"
#include "engine/constraint/text_fragments.h"

namespace nsa::constraint {
namespace {

constexpr int64_t kLargestFreeInteger = 999'999'999'999'999'999;  // kMaxIntegerDigits nines
constexpr double kTwoTo63 = 9223372036854775808.0;

absl::StatusOr<const Json*> NumberMember(const Json& schema, const char* keyword,
                                         const std::string& pointer) {
  const Json* value = FindMember(schema, keyword);
  if (value != nullptr && !value->is_number()) {
    return SchemaError(JoinPointer(pointer, keyword), "must be a number");
  }
  return value;
}

// The least integer that is >= the value (or > it); nothing if that is no int64.
std::optional<int64_t> LeastInteger(const Json& value, bool is_exclusive) {
  if (value.is_number_integer() && !value.is_number_unsigned()) {
    const auto number = value.get<int64_t>();
    if (is_exclusive && number == std::numeric_limits<int64_t>::max()) return {};
    return number + (is_exclusive ? 1 : 0);
  }
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    const auto largest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (number > largest - (is_exclusive ? 1 : 0)) return {};
    return static_cast<int64_t>(number) + (is_exclusive ? 1 : 0);
  }
  const double number = value.get<double>();
  const double least = is_exclusive ? std::floor(number) + 1 : std::ceil(number);
  if (least >= kTwoTo63) return {};
  return static_cast<int64_t>(std::max(least, -kTwoTo63));
}

// The bounds mirrored: what holds for the least integer above holds for the largest below.
Json Negative(const Json& value) {
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return -static_cast<double>(value.get<uint64_t>());
  }
  if (value.is_number_integer() && value.get<int64_t>() != std::numeric_limits<int64_t>::min()) {
    return -value.get<int64_t>();
  }
  return -value.get<double>();
}

absl::StatusOr<std::optional<NumberBound>> TightestBound(const Json* inclusive,
                                                         const Json* exclusive, bool is_low,
                                                         const std::string& pointer) {
  const Json* chosen = inclusive == nullptr ? exclusive : inclusive;
  if (chosen == nullptr) return std::optional<NumberBound>();
  if (inclusive != nullptr && exclusive != nullptr) {
    const double a = inclusive->get<double>();
    const double b = exclusive->get<double>();
    if (is_low ? b >= a : b <= a) chosen = exclusive;
  }
  const double value = chosen->get<double>();
  std::optional<Decimal> decimal = DecimalOf(value);
  if (!decimal) {
    // No number of the digits that are written lies past such a bound.
    const double limit = std::pow(10.0, kMaxDecimalDigits);
    if (is_low ? value <= -limit : value >= limit) return std::optional<NumberBound>();
    return SchemaError(pointer, absl::StrCat("the bound ", CompactText(*chosen),
                                             " needs more than ", kMaxDecimalDigits, " digits"));
  }
  return std::optional(NumberBound{*decimal, chosen != exclusive});
}

}  // namespace

absl::Status SchemaCompiler::AddTypes(const Json& schema, const std::string& pointer, Ends ends) {
  NSA_ASSIGN_OR_RETURN(auto types, TypesOf(schema, pointer));
  if (!types && !HasAssertions(schema)) {
    json_.AddAnyValue(ends.from, ends.to);
    return absl::OkStatus();
  }
  if (!types) types = {"array", "boolean", "null", "number", "object", "string"};
  const bool has_number = std::find(types->begin(), types->end(), "number") != types->end();
  for (const std::string& type : *types) {
    if (type == "integer" && has_number) continue;
    NSA_RETURN_IF_ERROR(AddType(type, schema, pointer, ends));
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddType(const std::string& type, const Json& schema,
                                     const std::string& pointer, Ends ends) {
  if (type == "object") return AddObject(schema, pointer, ends);
  if (type == "array") return AddArray(schema, pointer, ends);
  if (type == "string") return AddString(schema, pointer, ends);
  if (type == "integer") return AddIntegerType(schema, pointer, ends);
  if (type == "number") return AddNumberType(schema, pointer, ends);
  if (type == "null") {
    AddText(grammar_, "null", ends.from, ends.to);
  } else {
    AddAnyText(grammar_, {"true", "false"}, ends.from, ends.to);
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddPattern(std::string_view regex, const std::string& pointer,
                                        Ends ends) {
  const auto parsed = ParseRegex(regex, limits_.max_source_nesting);
  if (!parsed.ok()) return SchemaError(pointer, std::string(parsed.status().message()));
  const StateId begin = grammar_->AddState();
  const StateId end = grammar_->AddState();
  grammar_->AddBytes(ends.from, '"', '"', begin);
  AddRegex(grammar_, *parsed, RegexMatch::kSearch, TextEncoding::kJsonString, begin, end);
  grammar_->AddBytes(end, '"', '"', ends.to);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddString(const Json& schema, const std::string& pointer, Ends ends) {
  NSA_ASSIGN_OR_RETURN(const auto min_length, CountOf(schema, "minLength", pointer));
  NSA_ASSIGN_OR_RETURN(const auto max_length, CountOf(schema, "maxLength", pointer));
  const Json* pattern = FindMember(schema, "pattern");
  const Json* format = FindMember(schema, "format");
  std::string_view format_regex;
  if (format != nullptr && format->is_string()) {
    format_regex = FormatRegex(format->get_ref<const std::string&>());
  }
  if (pattern == nullptr && format_regex.empty()) {
    AddJsonString(grammar_, min_length.value_or(0), max_length, ends.from, ends.to);
    return absl::OkStatus();
  }
  if (pattern != nullptr && !pattern->is_string()) {
    return SchemaError(JoinPointer(pointer, "pattern"), "must be a string");
  }
  const std::string keyword_pointer = JoinPointer(pointer, pattern ? "pattern" : "format");
  const bool has_length = min_length.value_or(0) > 0 || max_length;
  if (has_length || (pattern != nullptr && !format_regex.empty())) {
    return SchemaError(keyword_pointer,
                       "pattern, format and minLength/maxLength cannot be joined; a pattern can "
                       "count: ^.{1,20}$");
  }
  return AddPattern(pattern ? pattern->get_ref<const std::string&>() : format_regex,
                    keyword_pointer, ends);
}

absl::Status SchemaCompiler::AddIntegerType(const Json& schema, const std::string& pointer,
                                            Ends ends) {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();
  bool has_low = false;
  bool has_high = false;
  for (const char* keyword : {"minimum", "exclusiveMinimum"}) {
    NSA_ASSIGN_OR_RETURN(const Json* value, NumberMember(schema, keyword, pointer));
    if (value == nullptr) continue;
    const auto least = LeastInteger(*value, keyword[0] == 'e');
    if (!least) return absl::OkStatus();  // past every integer
    low = std::max(low, *least);
    has_low = true;
  }
  for (const char* keyword : {"maximum", "exclusiveMaximum"}) {
    NSA_ASSIGN_OR_RETURN(const Json* value, NumberMember(schema, keyword, pointer));
    if (value == nullptr) continue;
    const auto least = LeastInteger(Negative(*value), keyword[0] == 'e');
    if (!least) return absl::OkStatus();
    const bool is_least = *least == std::numeric_limits<int64_t>::min();
    high = std::min(high, is_least ? std::numeric_limits<int64_t>::max() : -*least);
    has_high = true;
  }
  if (!has_low && high >= -kLargestFreeInteger) low = -kLargestFreeInteger;
  if (!has_high && low <= kLargestFreeInteger) high = kLargestFreeInteger;
  AddInteger(grammar_, low, high, ends.from, ends.to);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddNumberType(const Json& schema, const std::string& pointer,
                                           Ends ends) {
  NSA_ASSIGN_OR_RETURN(const Json* minimum, NumberMember(schema, "minimum", pointer));
  NSA_ASSIGN_OR_RETURN(const Json* above, NumberMember(schema, "exclusiveMinimum", pointer));
  NSA_ASSIGN_OR_RETURN(const Json* maximum, NumberMember(schema, "maximum", pointer));
  NSA_ASSIGN_OR_RETURN(const Json* below, NumberMember(schema, "exclusiveMaximum", pointer));
  if (minimum == nullptr && above == nullptr && maximum == nullptr && below == nullptr) {
    AddNumber(grammar_, ends.from, ends.to);
    return absl::OkStatus();
  }
  NumberBounds bounds;
  NSA_ASSIGN_OR_RETURN(bounds.low, TightestBound(minimum, above, /*is_low=*/true, pointer));
  NSA_ASSIGN_OR_RETURN(bounds.high, TightestBound(maximum, below, /*is_low=*/false, pointer));
  AddBoundedNumber(grammar_, bounds, ends.from, ends.to);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddArray(const Json& schema, const std::string& pointer, Ends ends) {
  NSA_ASSIGN_OR_RETURN(const auto min_items, CountOf(schema, "minItems", pointer));
  NSA_ASSIGN_OR_RETURN(const auto max_items, CountOf(schema, "maxItems", pointer));
  const Json* prefix = FindMember(schema, "prefixItems");
  const Json* items = FindMember(schema, "items");
  if (prefix != nullptr && !prefix->is_array()) {
    return SchemaError(JoinPointer(pointer, "prefixItems"), "must be a list of schemas");
  }
  if (items != nullptr && items->is_array()) {
    return SchemaError(JoinPointer(pointer, "items"), "a list of schemas is called prefixItems");
  }
  if (prefix == nullptr && items == nullptr && !min_items && !max_items) {
    json_.AddAnyArray(ends.from, ends.to);
    return absl::OkStatus();
  }
  const Json item = items == nullptr ? Json(true) : *items;
  const int64_t min_count = min_items.value_or(0);
  const int64_t num_prefix = prefix == nullptr ? 0 : static_cast<int64_t>(prefix->size());
  // Elements that are told apart; the rest of an array without end is one loop.
  const int64_t num_counted = max_items.value_or(std::max({min_count, num_prefix, int64_t{1}}));
  const bool has_rule = num_counted - num_prefix > 1;

  const StateId open = grammar_->AddState();
  const StateId end = grammar_->AddState();  // all but the closing bracket
  grammar_->AddBytes(ends.from, '[', '[', open);
  StateId element = json_.AddSpace(open);  // where element i begins
  if (min_count == 0) grammar_->AddBytes(element, ']', ']', ends.to);
  const StateId first = grammar_->AddState();  // the loop comes back to it, not to "[]"
  grammar_->AddEpsilon(element, first);
  element = first;
  for (int64_t i = 0; i < num_counted && !grammar_->over_limit(); ++i) {
    const StateId after = grammar_->AddState();
    if (i < num_prefix) {
      const std::string at = JoinPointer(JoinPointer(pointer, "prefixItems"), absl::StrCat(i));
      NSA_RETURN_IF_ERROR(Add((*prefix)[i], at, {element, after}));
    } else if (has_rule) {
      const RuleId rule = RuleOfContent(item, JoinPointer(pointer, "items"));
      grammar_->AddCall(element, rule, after);
    } else {
      NSA_RETURN_IF_ERROR(Add(item, JoinPointer(pointer, "items"), {element, after}));
    }
    if (i + 1 >= min_count) grammar_->AddEpsilon(after, end);
    const bool is_last = i + 1 == num_counted;
    if (is_last && max_items) break;
    const StateId comma = grammar_->AddState();
    grammar_->AddBytes(after, ',', ',', comma);
    const StateId next = json_.AddSpace(comma);
    const bool may_loop = is_last && i >= num_prefix;
    if (may_loop) grammar_->AddEpsilon(next, element);
    if (is_last && !may_loop) {
      const StateId rest = grammar_->AddState();
      NSA_RETURN_IF_ERROR(Add(item, JoinPointer(pointer, "items"), {next, rest}));
      grammar_->AddEpsilon(rest, end);
      const StateId rest_comma = grammar_->AddState();
      grammar_->AddBytes(rest, ',', ',', rest_comma);
      grammar_->AddEpsilon(json_.AddSpace(rest_comma), next);
    }
    element = next;
  }
  grammar_->AddBytes(json_.AddSpace(end), ']', ']', ends.to);
  return absl::OkStatus();
}

}  // namespace nsa::constraint
