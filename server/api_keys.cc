#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status.h"

namespace nsa {
namespace {

bool IsVisible(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isgraph(c); });
}

// What is wrong with a line's key; empty: nothing.
std::string ProblemOf(absl::string_view key) {
  if (key.size() < ApiKeys::kMinKeyBytes || key.size() > ApiKeys::kMaxKeyBytes) {
    return absl::StrCat("the key has ", key.size(), " characters; allowed: ", ApiKeys::kMinKeyBytes,
                        " to ", ApiKeys::kMaxKeyBytes);
  }
  if (!IsVisible(key)) return "the key has characters other than visible ASCII";
  return "";
}

}  // namespace

ApiKeys::Digest ApiKeys::DigestOf(absl::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(absl::string_view text, const std::string& name) {
  ApiKeys keys;
  int64_t line_number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    const absl::string_view key = absl::StripAsciiWhitespace(line);
    if (key.empty() || key.front() == '#') continue;
    std::string problem = ProblemOf(key);
    if (problem.empty() && keys.size() == kMaxKeys) {
      problem = absl::StrCat("there are more than ", kMaxKeys, " keys");
    }
    if (!problem.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": line ", line_number, ": ", problem));
    }
    keys.digests_.push_back(DigestOf(key));
  }
  if (keys.digests_.empty()) return absl::InvalidArgumentError(name + ": there is no key in it");
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  NSA_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return Parse(text, path);
}

absl::StatusOr<std::string> ApiKeys::CheckAuthorization(
    std::optional<absl::string_view> header) const {
  constexpr absl::string_view kScheme = "Bearer ";
  if (!header.has_value()) {
    return absl::UnauthenticatedError("an API key is needed: Authorization: Bearer KEY");
  }
  if (!absl::StartsWithIgnoreCase(*header, kScheme)) {
    return absl::UnauthenticatedError("the Authorization header is not of the kind Bearer KEY");
  }
  const absl::string_view key = absl::StripAsciiWhitespace(header->substr(kScheme.size()));
  // Digests are of one length and tell nothing about how much of a key was right; all are compared.
  const Digest digest = DigestOf(key.substr(0, kMaxKeyBytes + 1));
  bool is_known = false;
  for (const Digest& known : digests_) {
    is_known |= CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0;
  }
  if (!is_known) return absl::UnauthenticatedError("the API key is not known");
  const absl::string_view bytes(reinterpret_cast<const char*>(digest.data()), digest.size());
  return absl::BytesToHexString(bytes);
}

}  // namespace nsa
