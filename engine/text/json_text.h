#pragma once
// JSON text that nobody has checked, and values that know where they stand in it, so that a message
// can say which one is wrong.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa {

inline constexpr int kMaxJsonDepth = 64;  // the files of public models nest 7 deep

// INVALID_ARGUMENT: not valid JSON, not an object, or lists and objects nest deeper than
// kMaxJsonDepth.
absl::StatusOr<nlohmann::json> ParseJsonDocument(std::string_view text);

// A value inside a document that outlives it. Absent and null are the same.
class JsonNode {
 public:
  // `path`: "model.merges[3]"; empty for the document itself.
  explicit JsonNode(const nlohmann::json* value, std::string path = {})
      : value_(value), path_(std::move(path)) {}

  bool is_absent() const { return value_ == nullptr || value_->is_null(); }
  bool is_string() const { return value_ != nullptr && value_->is_string(); }
  // Precondition: not absent.
  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }

  // A member; absent if this is no object.
  JsonNode Member(const std::string& key) const;
  // Elements of a list; empty if this is absent.
  absl::StatusOr<std::vector<JsonNode>> Elements() const;
  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool(bool value_if_absent) const;
  absl::StatusOr<int64_t> Integer(int64_t low, int64_t high) const;

  // "PATH is FOUND; allowed: ALLOWED".
  absl::Status Invalid(std::string_view allowed) const;
  // "PATH is FOUND; supported: SUPPORTED".
  absl::Status Unsupported(std::string_view supported) const;

 private:
  std::string Found() const;

  const nlohmann::json* value_;  // null: absent
  std::string path_;
};

}  // namespace nsa
