#include "server/request_id.h"

#include <algorithm>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"

namespace nsa {
namespace {

constexpr size_t kMaxRequestIdChars = 128;

bool IsLowerHex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Hexadecimal digits that are not all zero.
bool IsTraceContextId(std::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

bool IsAcceptableRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdChars &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '-';
         });
}

std::string NewId(std::string_view prefix) {
  absl::BitGen random;
  return std::string(prefix) + absl::StrFormat("%016x%08x", absl::Uniform<uint64_t>(random),
                                               absl::Uniform<uint32_t>(random));
}

// version "-" trace-id "-" parent-id "-" trace-flags
std::string TraceIdOf(std::string_view traceparent) {
  constexpr size_t kKnownBytes = 55;
  if (traceparent.size() < kKnownBytes) return "";
  const std::string_view version = traceparent.substr(0, 2);
  const std::string_view trace_id = traceparent.substr(3, 32);
  const std::string_view parent_id = traceparent.substr(36, 16);
  const std::string_view flags = traceparent.substr(53, 2);
  for (const size_t dash : {2, 35, 52}) {
    if (traceparent[dash] != '-') return "";
  }
  const bool ends_well =
      traceparent.size() == kKnownBytes || (version != "00" && traceparent[kKnownBytes] == '-');
  const bool is_valid = ends_well && IsLowerHex(version) && version != "ff" &&
                        IsTraceContextId(trace_id) && IsTraceContextId(parent_id) &&
                        IsLowerHex(flags);
  return is_valid ? std::string(trace_id) : "";
}

}  // namespace nsa
