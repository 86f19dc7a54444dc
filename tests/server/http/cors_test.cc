#include "server/http/cors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

class CorsTest : public ApiTest {
 protected:
  CorsTest() {
    http_options_.max_total_body_bytes = 50000;
    http_options_.read_timeout = absl::Milliseconds(300);
  }
  void SetUp() override {
    api_.access.cors = CorsPolicy({"https://chat.example", "http://localhost:3000"});
    Start();
  }
  RawResponse Call(const std::string& method, const std::string& path, const std::string& headers) {
    return Fetch(port(), absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: h\r\n", headers,
                                      "Content-Length: 0\r\n\r\n"));
  }
};

TEST_F(CorsTest, KnownOriginsMayReadAnswersAndErrors) {
  for (const char* path : {"/health", "/nowhere"}) {
    const RawResponse response = Call("GET", path, "Origin: https://chat.example\r\n");
    EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://chat.example") << path;
    EXPECT_EQ(response.headers.at("vary"), "Origin");
    EXPECT_THAT(response.headers.at("access-control-expose-headers"), HasSubstr("X-Request-Id"));
  }
}

TEST_F(CorsTest, OthersGetNoPermission) {
  for (const char* headers :
       {"", "Origin: https://evil.example\r\n", "Origin: https://chat.example.evil\r\n",
        "Origin: null\r\n", "Origin: http://chat.example\r\n"}) {
    const RawResponse response = Call("GET", "/health", headers);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.headers.count("access-control-allow-origin"), 0U) << headers;
    EXPECT_EQ(response.headers.at("vary"), "Origin");  // a cache must not hand it to an allowed one
  }
}

// What the server refuses before an endpoint sees it.
TEST_F(CorsTest, RefusalsOfTheConnectionToo) {
  const std::string origin = "Origin: https://chat.example\r\n";
  const std::string post = "POST /tokenize HTTP/1.1\r\nHost: h\r\n" + origin;
  const std::pair<std::string, int> cases[] = {
      {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {post + "Content-Length: 100000000\r\n\r\n", 413},
      {post + "X: " + std::string(40000, 'x') + "\r\n\r\n", 431},
      {post + "Expect: tea\r\nContent-Length: 1\r\n\r\n", 417},
      {post + "Content-Length: 100000\r\nContent-Type: application/json\r\n\r\n" +
           std::string(100000, 'x'),
       503},  // more than all bodies together
      {post + "Content-Length: 10\r\nContent-Type: application/json\r\n\r\n", 408},
      {"POST /tokenize HTTP/1.1\r\n" + origin + "Ho", 408},
  };
  for (const auto& [request, status] : cases) {
    const RawResponse response = Fetch(port(), request);
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://chat.example") << status;
    EXPECT_EQ(response.headers.at("vary"), "Origin");
  }
  const RawResponse other = Fetch(port(), "GET / HTTP/1.1\r\nOrigin: https://e.vil\r\n\r\n");
  EXPECT_EQ(other.status, 400);
  EXPECT_EQ(other.headers.count("access-control-allow-origin"), 0U);
}

class CrowdedCorsTest : public CorsTest {
 protected:
  CrowdedCorsTest() { http_options_.max_connections = 1; }
};

TEST_F(CrowdedCorsTest, ARefusedConnectionToo) {
  RawClient first(port());
  first.Send(Get("/health"));
  EXPECT_EQ(first.Receive().status, 200);
  const RawResponse refused = Call("GET", "/version", "Origin: https://chat.example\r\n");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://chat.example");
}

TEST_F(CorsTest, StreamsToo) {
  RawClient client(port());
  const std::string body = R"({"prompt":[1],"max_tokens":2,"stream":true})";
  client.Send(
      absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: h\r\nOrigin: "
                   "http://localhost:3000\r\nContent-Type: application/json\r\n"
                   "Content-Length: ",
                   body.size(), "\r\n\r\n", body));
  EXPECT_EQ(client.Receive().headers.at("access-control-allow-origin"), "http://localhost:3000");
}

TEST_F(CorsTest, PreflightListsMethodsAndHeaders) {
  const std::string ask =
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n";
  const RawResponse yes =
      Call("OPTIONS", "/v1/chat/completions", "Origin: https://chat.example\r\n" + ask);
  EXPECT_EQ(yes.status, 204);
  EXPECT_EQ(yes.headers.at("access-control-allow-methods"), "POST, OPTIONS");
  EXPECT_EQ(yes.headers.at("access-control-allow-headers"),
            "authorization,content-type,x-stainless-os");
  EXPECT_EQ(yes.headers.at("access-control-max-age"), "600");
  for (const std::string& list :
       {std::string("a: b"), std::string("a;b"), std::string(1025, 'a')}) {
    const RawResponse odd = Call("OPTIONS", "/v1/chat/completions",
                                 "Origin: https://chat.example\r\nAccess-Control-Request-Method: "
                                 "POST\r\nAccess-Control-Request-Headers: " +
                                     list + "\r\n");
    EXPECT_EQ(odd.headers.count("access-control-allow-headers"), 0U) << list;
  }
  const RawResponse no =
      Call("OPTIONS", "/v1/chat/completions", "Origin: https://evil.example\r\n" + ask);
  EXPECT_EQ(no.status, 204);
  EXPECT_EQ(no.headers.count("access-control-allow-methods"), 0U);
  const RawResponse plain =
      Call("OPTIONS", "/v1/chat/completions", "Origin: https://chat.example\r\n");
  EXPECT_EQ(plain.headers.count("access-control-allow-methods"), 0U);
}

class AnyOriginTest : public CorsTest {
 protected:
  void SetUp() override {
    api_.access.cors = CorsPolicy({"*"});
    Start();
  }
};

TEST_F(AnyOriginTest, IsAllowedByName) {
  EXPECT_EQ(Call("GET", "/health", "Origin: https://some.where\r\n")
                .headers.at("access-control-allow-origin"),
            "https://some.where");
}

}  // namespace
}  // namespace nsa
