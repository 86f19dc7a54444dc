#pragma once
// ApiKeys: who may use the server. Keys are kept as digests only.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nsa {

class ApiKeys {
 public:
  static constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
  static constexpr size_t kMaxKeys = 4096;
  static constexpr size_t kMinKeyBytes = 8, kMaxKeyBytes = 512;

  // One key per line, of visible ASCII characters; blank lines and lines that begin with '#' are
  // skipped. INVALID_ARGUMENT names file and line, never a key: no key at all, a key that is too
  // short, too long or has other characters, too many keys, a file that is too large.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text, const std::string& name);

  // The name of the key in an Authorization header ("Bearer KEY"), under which its owner's cached
  // prompts are kept apart; UNAUTHENTICATED if the header is missing, of another kind, or has none
  // of the keys. The time taken does not depend on which key, or how much of one, was right.
  absl::StatusOr<std::string> CheckAuthorization(std::optional<absl::string_view> header) const;

  size_t size() const { return digests_.size(); }

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest DigestOf(absl::string_view key);

  std::vector<Digest> digests_;
};

}  // namespace nsa
