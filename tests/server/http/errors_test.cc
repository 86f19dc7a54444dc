#include "server/http/errors.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"
#include "server/error_detail.h"

namespace nsa {
namespace {

struct Row {
  absl::StatusCode status;
  ErrorDetail detail;
  int http;
  std::string type, code;
};

TEST(ErrorFromStatus, FollowsTheTable) {
  using Code = absl::StatusCode;
  const std::string client = "invalid_request_error", server = "server_error";
  const Row rows[] = {
      {Code::kInvalidArgument, {}, 400, client, "invalid_value"},
      {Code::kInvalidArgument, {"", "invalid_json"}, 400, client, "invalid_json"},
      {Code::kInvalidArgument, {"n", "invalid_type"}, 400, client, "invalid_type"},
      {Code::kInvalidArgument,
       {"", "context_length_exceeded"},
       400,
       client,
       "context_length_exceeded"},
      {Code::kNotFound, {"model", "model_not_found"}, 404, client, "model_not_found"},
      {Code::kUnauthenticated, {}, 401, client, "invalid_api_key"},
      {Code::kResourceExhausted, {}, 429, server, "overloaded"},
      {Code::kResourceExhausted,
       {"messages", "request_too_large"},
       413,
       client,
       "request_too_large"},
      {Code::kUnavailable, {}, 503, server, "unavailable"},
      {Code::kCancelled, {}, 503, server, "unavailable"},
      {Code::kDeadlineExceeded, {}, 504, server, "timeout"},
  };
  for (const Row& row : rows) {
    const HttpError error =
        ErrorFromStatus(WithDetail(absl::Status(row.status, "because"), row.detail));
    EXPECT_EQ(error.status, row.http) << row.code;
    EXPECT_EQ(error.type, row.type) << row.code;
    EXPECT_EQ(error.code, row.code);
    EXPECT_EQ(error.param, row.detail.param);
    EXPECT_EQ(error.message, "because");
  }
}

TEST(ErrorFromStatus, TellsNothingOfAnInternalError) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kInternal, absl::StatusCode::kUnknown, absl::StatusCode::kDataLoss,
        absl::StatusCode::kFailedPrecondition}) {
    const HttpError error =
        ErrorFromStatus(WithDetail(absl::Status(code, "at 0x7f /etc/secret"), {"p", "c"}));
    EXPECT_EQ(error.status, 500);
    EXPECT_EQ(error.type, "server_error");
    EXPECT_EQ(error.code, "internal_error");
    EXPECT_EQ(error.param, "");
    EXPECT_EQ(error.message.find("secret"), std::string::npos);
  }
}

TEST(ProtocolError, HasACodeForEachStatus) {
  const std::pair<int, std::string> rows[] = {
      {400, "malformed_request"},  {404, "not_found"},         {405, "method_not_allowed"},
      {408, "request_timeout"},    {413, "request_too_large"}, {415, "unsupported_media_type"},
      {417, "expectation_failed"}, {431, "request_too_large"}, {500, "internal_error"},
      {501, "not_implemented"},    {503, "unavailable"}};
  for (const auto& [status, code] : rows) {
    EXPECT_EQ(ProtocolError(status, "m").status, status);
    EXPECT_EQ(ProtocolError(status, "m").code, code);
  }
}

TEST(ErrorBody, HasTheOpenAiShape) {
  EXPECT_EQ(ErrorBody({.status = 400, .type = "t", .code = "c", .param = "p", .message = "m"}),
            R"({"error":{"message":"m","type":"t","param":"p","code":"c"}})");
  EXPECT_EQ(ErrorBody({.status = 400, .type = "t", .message = "a\"b\n\xff"}),
            "{\"error\":{\"message\":\"a\\\"b\\n\xEF\xBF\xBD\",\"type\":\"t\",\"param\":null,"
            "\"code\":null}}");
}

TEST(ErrorResponse, CarriesTheHeadersOfItsStatus) {
  const auto header = [](int status, const std::string& name) {
    const HttpResponse response = ErrorResponse({.status = status});
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.content_type, "application/json");
    for (const auto& [key, value] : response.headers) {
      if (key == name) return value;
    }
    return std::string();
  };
  EXPECT_EQ(header(429, "Retry-After"), "1");
  EXPECT_EQ(header(503, "Retry-After"), "5");
  EXPECT_EQ(header(401, "WWW-Authenticate"), "Bearer");
  EXPECT_EQ(header(400, "Retry-After"), "");
}

}  // namespace
}  // namespace nsa
