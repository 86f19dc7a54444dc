#pragma once
// Request bodies: strict JSON within limits, and typed access to an object's fields that remembers
// the first thing that was wrong.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/http/unknown_fields.h"

namespace nsa {

inline constexpr int kMaxJsonDepth = 64;

// The body as a JSON object. INVALID_ARGUMENT with code invalid_json: not JSON, not UTF-8, not an
// object, nested deeper than kMaxJsonDepth, a number beyond a double, or a key twice in an object
// (readers disagree on which one counts).
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view body);

// Typed reading of one object. Null means absent. The first field that is wrong is kept in
// status(), with its full name as `param`; after it getters go on and return what they can.
class JsonFields {
 public:
  // `path` prefixes the names in errors, for example "messages[0].". The object must outlive this.
  explicit JsonFields(const nlohmann::json& object, std::string path = "",
                      UnknownFields unknown = UnknownFields::kIgnored);
  // The fields of an object inside this one, with the same treatment of unknown ones.
  JsonFields Inner(const std::string& key, const nlohmann::json& object) const;

  // The field; nullptr if absent or null. Reading a field makes it a known one.
  const nlohmann::json* Find(const std::string& key);

  std::optional<std::string> String(const std::string& key);
  std::optional<bool> Bool(const std::string& key);
  std::optional<int64_t> Int(const std::string& key);
  // An integer of 64 bits, signed or not, as its bits.
  std::optional<uint64_t> Bits(const std::string& key);
  std::optional<double> Number(const std::string& key);
  std::optional<std::vector<int64_t>> IntList(const std::string& key);
  // The same for a value that is not a field of its own; `name` is for the error.
  std::optional<std::vector<int64_t>> IntListOf(const std::string& name,
                                                const nlohmann::json& value);
  // A string is a list of one.
  std::optional<std::vector<std::string>> StringOrList(const std::string& key);
  const nlohmann::json* Object(const std::string& key);

  // Records an error for the field unless there is one already. `problem` completes a sentence
  // that begins with the field's name: "is 7; the limit is 5".
  void Refuse(const std::string& key, const std::string& problem);
  void RefuseType(const std::string& key, const std::string& wanted, const nlohmann::json& found);
  void RefuseMissing(const std::string& key);
  // Takes over another reader's error (of an object inside this one).
  void Merge(const absl::Status& status);

  // When everything has been read: refuses a field that is not known, if so desired. The status.
  const absl::Status& Finish();

  std::string FullName(const std::string& key) const;
  const absl::Status& status() const { return status_; }

 private:
  void Record(const std::string& key, const std::string& code, const std::string& problem);
  std::optional<int64_t> IntValue(const std::string& key, const nlohmann::json& value);

  const nlohmann::json& object_;
  const std::string path_;
  const UnknownFields unknown_;
  absl::flat_hash_set<std::string> known_;  // where unknown ones are refused
  absl::Status status_;
};

}  // namespace nsa
