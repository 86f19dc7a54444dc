#include "server/error_detail.h"

#include "absl/strings/cord.h"

namespace nsa {
namespace {

constexpr char kPayloadUrl[] = "nsa/error_detail";
// Separates the two fields in the payload; occurs in no field name and no code.
constexpr char kSeparator = '\n';

}  // namespace

absl::Status WithDetail(absl::Status status, ErrorDetail detail) {
  status.SetPayload(kPayloadUrl, absl::Cord(detail.param + kSeparator + detail.code));
  return status;
}

absl::Status LoadingError() {
  return WithDetail(absl::UnavailableError("the model is being loaded"), {.code = "unavailable"});
}

ErrorDetail GetDetail(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return {};
  const std::string text(*payload);
  const size_t separator = text.find(kSeparator);
  return {.param = text.substr(0, separator), .code = text.substr(separator + 1)};
}

}  // namespace nsa
