#include "server/http/json_reader.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "server/error_detail.h"

namespace nsa {
namespace {

using nlohmann::json;

constexpr size_t kMaxQuotedBytes = 200;  // of the client's text in a message

// Builds the document value by value and stops at the first violation.
class DocumentBuilder final : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(json::number_integer_t value) override { return Add(value); }
  bool number_unsigned(json::number_unsigned_t value) override { return Add(value); }
  bool number_float(json::number_float_t value, const std::string&) override { return Add(value); }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(json::binary_t&) override { return Fail("binary values are not JSON"); }
  bool start_object(std::size_t) override { return Open(json::object()); }
  bool end_object() override { return Shut(); }
  bool start_array(std::size_t) override { return Open(json::array()); }
  bool end_array() override { return Shut(); }

  bool key(std::string& name) override {
    const auto [place, is_new] = open_.back()->emplace(name, nullptr);
    if (!is_new) {
      return Fail(
          absl::StrCat("key '", name.substr(0, kMaxQuotedBytes), "' appears twice in one object"));
    }
    member_ = &place.value();
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    std::string text = error.what();
    if (const size_t end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
    return Fail(text.substr(0, kMaxQuotedBytes));
  }

  const std::string& problem() const { return problem_; }
  json& document() { return document_; }

 private:
  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  json* Place(json value) {
    if (open_.empty()) {
      document_ = std::move(value);
      return &document_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool Add(json value) {
    Place(std::move(value));
    return true;
  }

  bool Open(json container) {
    if (open_.size() >= kMaxJsonDepth) {
      return Fail(absl::StrCat("it is nested deeper than ", kMaxJsonDepth, " levels"));
    }
    open_.push_back(Place(std::move(container)));
    return true;
  }

  bool Shut() {
    open_.pop_back();
    return true;
  }

  json document_;
  std::vector<json*> open_;  // containers around the next value, outermost first
  json* member_ = nullptr;   // of the innermost object: where the value of the last key goes
  std::string problem_;
};

absl::Status InvalidJson(const std::string& problem) {
  return WithDetail(
      absl::InvalidArgumentError(absl::StrCat("the body is not acceptable JSON: ", problem)),
      {.param = "", .code = "invalid_json"});
}

const char* TypeName(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return "a boolean";
    case json::value_t::string:
      return "a string";
    case json::value_t::array:
      return "a list";
    case json::value_t::object:
      return "an object";
    case json::value_t::number_float:
      return "a number with a fraction or exponent";
    default:
      return "an integer";
  }
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view body) {
  DocumentBuilder builder;
  if (!json::sax_parse(body, &builder)) return InvalidJson(builder.problem());
  if (!builder.document().is_object()) {
    return InvalidJson(absl::StrCat("it is ", TypeName(builder.document()), ", not an object"));
  }
  return std::move(builder.document());
}

JsonFields::JsonFields(const json& object, std::string path, UnknownFields unknown)
    : object_(object), path_(std::move(path)), unknown_(unknown) {}

JsonFields JsonFields::Inner(const std::string& key, const json& object) const {
  return JsonFields(object, FullName(key) + ".", unknown_);
}

const json* JsonFields::Find(const std::string& key) {
  if (unknown_ == UnknownFields::kRefused) known_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> JsonFields::String(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  RefuseType(key, "a string", *value);
  return std::nullopt;
}

std::optional<bool> JsonFields::Bool(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  RefuseType(key, "a boolean", *value);
  return std::nullopt;
}

std::optional<int64_t> JsonFields::IntValue(const std::string& key, const json& value) {
  // An integer beyond 64 bits has been read as a double.
  const bool is_whole =
      value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>();
  const bool is_huge = is_whole && std::fabs(value.get<double>()) >= 9.2e18;
  if (is_huge || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    Refuse(key, absl::StrCat("is ", value.dump(), ", outside of the 64-bit integers"));
    return std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  RefuseType(key, "an integer", value);
  return std::nullopt;
}

std::optional<int64_t> JsonFields::Int(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  return IntValue(key, *value);
}

std::optional<uint64_t> JsonFields::Bits(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  const std::optional<int64_t> number = IntValue(key, *value);
  if (!number.has_value()) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

std::optional<double> JsonFields::Number(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) return value->get<double>();
  RefuseType(key, "a number", *value);
  return std::nullopt;
}

std::optional<std::vector<int64_t>> JsonFields::IntList(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  return IntListOf(key, *value);
}

std::optional<std::vector<int64_t>> JsonFields::IntListOf(const std::string& name,
                                                          const json& value) {
  if (!value.is_array()) {
    RefuseType(name, "a list of integers", value);
    return std::nullopt;
  }
  std::vector<int64_t> list;
  list.reserve(value.size());
  for (const json& item : value) {
    const std::optional<int64_t> number = IntValue(absl::StrCat(name, "[", list.size(), "]"), item);
    if (!number.has_value()) return std::nullopt;
    list.push_back(*number);
  }
  return list;
}

std::optional<std::vector<std::string>> JsonFields::StringOrList(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::vector<std::string>{value->get<std::string>()};
  if (!value->is_array()) {
    RefuseType(key, "a string or a list of strings", *value);
    return std::nullopt;
  }
  std::vector<std::string> list;
  for (const json& item : *value) {
    if (!item.is_string()) {
      RefuseType(absl::StrCat(key, "[", list.size(), "]"), "a string", item);
      return std::nullopt;
    }
    list.push_back(item.get<std::string>());
  }
  return list;
}

const json* JsonFields::Object(const std::string& key) {
  const json* value = Find(key);
  if (value == nullptr || value->is_object()) return value;
  RefuseType(key, "an object", *value);
  return nullptr;
}

const absl::Status& JsonFields::Finish() {
  if (unknown_ == UnknownFields::kIgnored) return status_;
  for (const auto& [key, value] : object_.items()) {
    if (known_.contains(key)) continue;
    Refuse(ClipUtf8(key, kMaxQuotedBytes), "is not a field that this server knows");
    break;
  }
  return status_;
}

std::string JsonFields::FullName(const std::string& key) const { return absl::StrCat(path_, key); }

void JsonFields::Record(const std::string& key, const std::string& code,
                        const std::string& problem) {
  if (!status_.ok()) return;
  std::string name = FullName(key);
  status_ = absl::InvalidArgumentError(absl::StrCat("'", name, "' ", problem));
  status_ = WithDetail(status_, {.param = std::move(name), .code = code});
}

void JsonFields::Refuse(const std::string& key, const std::string& problem) {
  Record(key, "invalid_value", problem);
}

void JsonFields::RefuseType(const std::string& key, const std::string& wanted, const json& found) {
  Record(key, "invalid_type", absl::StrCat("must be ", wanted, ", not ", TypeName(found)));
}

void JsonFields::RefuseMissing(const std::string& key) {
  Record(key, "missing_required_parameter", "is missing");
}

void JsonFields::Merge(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

}  // namespace nsa
