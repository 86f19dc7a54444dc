#pragma once
// The one table from errors to HTTP: absl::Status (with its ErrorDetail) or a refusal of the HTTP
// layer itself -> status code, headers and the OpenAI error body.

#include <string>

#include "absl/status/status.h"
#include "server/http/http_message.h"

namespace nsa {

struct HttpError {
  int status = 500;
  std::string type;     // "invalid_request_error" or "server_error"
  std::string code;     // empty = null
  std::string param;    // empty = null
  std::string message;  // safe to show to a client
};

// An error of the service. Of an internal error nothing but the fact is told.
HttpError ErrorFromStatus(const absl::Status& status);

// A refusal by the HTTP layer: 400, 404, 405, 408, 413, 415, 417, 431, 500, 501, 503.
HttpError ProtocolError(int status, std::string message);

// {"error":{"message","type","param","code"}}
std::string ErrorBody(const HttpError& error);

// The body with its status and headers: Retry-After with 429 and 503, WWW-Authenticate with 401.
HttpResponse ErrorResponse(const HttpError& error);

}  // namespace nsa
