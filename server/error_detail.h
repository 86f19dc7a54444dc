#pragma once
// The OpenAI error body's `param` and `code`, carried on an absl::Status from the service to the
// transports.

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace nsa {

struct ErrorDetail {
  std::string param;  // name of the request field at fault; empty = null in the body
  std::string code;   // "invalid_value", "context_length_exceeded", ...; empty = null
};

// The status with this detail attached, replacing an earlier one.
absl::Status WithDetail(absl::Status status, ErrorDetail detail);
// What is answered before there is a model.
absl::Status LoadingError();

// The attached detail; empty fields where there is none.
ErrorDetail GetDetail(const absl::Status& status);

}  // namespace nsa
