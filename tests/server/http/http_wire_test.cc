#include "server/http/http_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(FormatHead, HasLengthTypeAndRequestId) {
  const std::string head = FormatHead({.status = 404, .body = "12345"}, {.request_id = "abc"});
  EXPECT_THAT(head, StartsWith("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
                               "Content-Length: 5\r\nDate: "));
  EXPECT_THAT(head, HasSubstr(" GMT\r\nServer: nsa-serve\r\nx-request-id: abc\r\n\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Connection")));
}

TEST(FormatHead, SaysHowTheBodyEnds) {
  const HttpResponse response;
  EXPECT_THAT(FormatHead(response, {.framing = BodyFraming::kChunked}),
              HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
  const std::string to_eof =
      FormatHead(response, {.framing = BodyFraming::kToEof, .keep_alive = false});
  EXPECT_THAT(to_eof, HasSubstr("\r\nConnection: close\r\n"));
  EXPECT_THAT(to_eof, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(FormatHead(response, {.http_1_0 = true}),
              HasSubstr("\r\nConnection: keep-alive\r\n"));
  EXPECT_THAT(FormatHead({.status = 204, .content_type = ""}, {}), Not(HasSubstr("Content-")));
}

TEST(FormatHead, KeepsTheEndpointsHeaders) {
  const HttpResponse response{.headers = {{"Allow", "GET"}, {"Retry-After", "1"}}};
  EXPECT_THAT(FormatHead(response, {}), HasSubstr("\r\nAllow: GET\r\nRetry-After: 1\r\n"));
}

TEST(FormatChunk, PutsTheLengthInHexadecimal) {
  EXPECT_EQ(FormatChunk("x"), "1\r\nx\r\n");
  EXPECT_EQ(FormatChunk(std::string(26, 'y')), "1a\r\n" + std::string(26, 'y') + "\r\n");
}

TEST(ParseTarget, SplitsAndDecodes) {
  const auto plain = ParseTarget("/v1/models/a%20b%2Fc?x=%41&y");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->path, "/v1/models/a b/c");
  EXPECT_EQ(plain->query, "x=%41&y");
  EXPECT_EQ(ParseTarget("http://host:1/health")->path, "/health");
  EXPECT_EQ(ParseTarget("https://host")->path, "/");
  EXPECT_EQ(ParseTarget("*")->path, "*");
}

TEST(ParseTarget, RefusesWhatIsMalformed) {
  for (const char* target : {"", "health", "?x", "/%", "/%4", "/%zz", "/a%00b", "http:///x"}) {
    EXPECT_FALSE(ParseTarget(target).has_value()) << target;
  }
}

TEST(HttpRequest, FindsHeadersWithoutCase) {
  const HttpRequest request{.headers = {{"Content-Type", "a"}, {"content-type", "b"}}};
  ASSERT_NE(request.Header("CONTENT-type"), nullptr);
  EXPECT_EQ(*request.Header("CONTENT-type"), "a");
  EXPECT_EQ(request.Header("Content"), nullptr);
}

}  // namespace
}  // namespace nsa
