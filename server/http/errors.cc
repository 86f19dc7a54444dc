#include "server/http/errors.h"

#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"
#include "server/error_detail.h"

namespace nsa {
namespace {

constexpr std::string_view kInvalidRequest = "invalid_request_error";
constexpr std::string_view kServerError = "server_error";

struct StatusRow {
  absl::StatusCode status;
  int http;
  std::string_view type;
  std::string_view code;  // where the status carries none
};
// A status that is not listed is an internal error. kCancelled reaches a client only when the
// server ends requests at shutdown.
constexpr StatusRow kStatusRows[] = {
    {absl::StatusCode::kInvalidArgument, 400, kInvalidRequest, "invalid_value"},
    {absl::StatusCode::kOutOfRange, 400, kInvalidRequest, "invalid_value"},
    {absl::StatusCode::kUnimplemented, 400, kInvalidRequest, "invalid_value"},
    {absl::StatusCode::kNotFound, 404, kInvalidRequest, "model_not_found"},
    {absl::StatusCode::kUnauthenticated, 401, kInvalidRequest, "invalid_api_key"},
    {absl::StatusCode::kResourceExhausted, 429, kServerError, "overloaded"},
    {absl::StatusCode::kUnavailable, 503, kServerError, "unavailable"},
    {absl::StatusCode::kCancelled, 503, kServerError, "unavailable"},
    {absl::StatusCode::kDeadlineExceeded, 504, kServerError, "timeout"},
};

struct ProtocolRow {
  int http;
  std::string_view type;
  std::string_view code;
};
constexpr ProtocolRow kProtocolRows[] = {
    {400, kInvalidRequest, "malformed_request"},  {404, kInvalidRequest, "not_found"},
    {405, kInvalidRequest, "method_not_allowed"}, {408, kInvalidRequest, "request_timeout"},
    {413, kInvalidRequest, "request_too_large"},  {415, kInvalidRequest, "unsupported_media_type"},
    {417, kInvalidRequest, "expectation_failed"}, {431, kInvalidRequest, "request_too_large"},
    {501, kInvalidRequest, "not_implemented"},    {503, kServerError, "unavailable"},
};

HttpError InternalError() {
  return {.status = 500,
          .type = std::string(kServerError),
          .code = "internal_error",
          .message = "the server failed while handling this request"};
}

}  // namespace

HttpError ErrorFromStatus(const absl::Status& status) {
  for (const StatusRow& row : kStatusRows) {
    if (row.status != status.code()) continue;
    ErrorDetail detail = GetDetail(status);
    // The service knows one limit of size besides the queue's.
    const bool too_large = detail.code == "request_too_large";
    return {.status = too_large ? 413 : row.http,
            .type = std::string(too_large ? kInvalidRequest : row.type),
            .code = detail.code.empty() ? std::string(row.code) : std::move(detail.code),
            .param = std::move(detail.param),
            .message = std::string(status.message())};
  }
  return InternalError();
}

HttpError ProtocolError(int status, std::string message) {
  for (const ProtocolRow& row : kProtocolRows) {
    if (row.http != status) continue;
    return {.status = status,
            .type = std::string(row.type),
            .code = std::string(row.code),
            .message = std::move(message)};
  }
  return InternalError();
}

std::string ErrorBody(const HttpError& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json body;
  body["error"] = {{"message", error.message},
                   {"type", error.type},
                   {"param", text_or_null(error.param)},
                   {"code", text_or_null(error.code)}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse ErrorResponse(const HttpError& error) {
  HttpResponse response{.status = error.status, .body = ErrorBody(error), .error_code = error.code};
  if (error.status == 429) response.headers.emplace_back("Retry-After", "1");
  if (error.status == 503) response.headers.emplace_back("Retry-After", "5");
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace nsa
