#include "server/http/routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/lanes.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

class RoutesTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
  RawResponse Call(const std::string& method, const std::string& path,
                   const std::string& headers = "") {
    return Fetch(port(), absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: h\r\n", headers,
                                      "Content-Length: 0\r\n\r\n"));
  }
};

// A path that the route answers to.
std::string PathOf(const Route& route) {
  return absl::StrReplaceAll(route.path, {{"{id}", "x"}, {"{file}", "style.css"}});
}

TEST(Routes, AreUnique) {
  std::set<std::string> seen;
  for (const Route& route : Routes()) {
    EXPECT_TRUE(seen.insert(absl::StrCat(route.method, route.path)).second);
    EXPECT_NE(route.endpoint, nullptr);
  }
}

TEST(Routes, LargeBodiesAndTokenizingHaveLanesOfTheirOwn) {
  const ApiContext api;
  HttpOptions options;
  SetApiHooks(&api, &options);
  const auto lane = [&](const std::string& path, size_t num_bytes) {
    return options.lane({.method = "POST", .path = path, .body = std::string(num_bytes, ' ')});
  };
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    EXPECT_EQ(lane(path, kMaxSmallRequestBytes), 0U) << path;
    EXPECT_EQ(lane(path, kMaxSmallRequestBytes + 1), 1U) << path;
  }
  EXPECT_EQ(lane("/tokenize", 2), 2U);
  EXPECT_EQ(lane("/detokenize", kMaxSmallRequestBytes + 1), 2U);
  const std::vector<int>& turns = options.lane_turns;
  EXPECT_GT(options.num_threads, std::accumulate(turns.begin(), turns.end(), 0));
}

TEST_F(RoutesTest, HealthVersionAndMetrics) {
  EXPECT_EQ(Call("GET", "/health").body, R"({"status":"ok"})");
  EXPECT_EQ(Call("GET", "/health?verbose=1").status, 200);
  EXPECT_EQ(Call("GET", "/version").body, R"({"version":"1.2.3"})");
  const RawResponse metrics = Call("GET", "/metrics");
  EXPECT_EQ(metrics.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(metrics.body, HasSubstr("vllm:num_requests_running{"));
}

TEST(LoadingTest, WhatNeedsTheModelIsUnavailable) {
  const ApiContext api{.version = "1.2.3"};
  const auto server = HttpServer::Start({.port = 0}, MakeApiHandler(&api)).value();
  for (const Route& route : Routes()) {
    const std::string path = absl::StrReplaceAll(route.path, {{"{file}", "main.js"}});
    const RawResponse response =
        Fetch(server->port(), route.method == "GET" ? Get(path) : PostJson(path, "{}"));
    EXPECT_EQ(response.status, route.needs_model ? 503 : 200) << path;
    if (!route.needs_model) continue;
    EXPECT_EQ(response.headers.count("retry-after"), 1U);
    EXPECT_THAT(response.body, HasSubstr(R"("message":"the model is being loaded")"));
    EXPECT_THAT(response.body, HasSubstr(R"("code":"unavailable")"));
  }
  EXPECT_EQ(Fetch(server->port(), Get("/health")).status, 200);
  EXPECT_EQ(Fetch(server->port(), Get("/health/ready")).status, 503);
}

class CrowdedRoutesTest : public RoutesTest {
 protected:
  CrowdedRoutesTest() { http_options_.max_connections = 1; }
};

TEST_F(CrowdedRoutesTest, ProbesAreAnsweredBeyondTheLimitOfConnections) {
  RawClient first(port());
  first.Send(Get("/version"));
  EXPECT_EQ(first.Receive().status, 200);
  for (const Route& route : Routes()) {
    const RawResponse response = Call(std::string(route.method), std::string(route.path));
    EXPECT_EQ(response.status, route.access == RouteAccess::kProbe ? 200 : 503) << route.path;
  }
  EXPECT_EQ(Call("POST", "/health").status, 503);
}

// Held steps make an engine that hangs: not before the timeout, not without work.
class HungEngineTest : public RoutesTest {
 protected:
  HungEngineTest() { liveness_timeout_ = absl::Milliseconds(300); }
};

TEST_F(HungEngineTest, HealthFailsUntilAStepEnds) {
  absl::SleepFor(absl::Milliseconds(400));
  EXPECT_EQ(Call("GET", "/health").status, 200);  // idle for longer than the timeout
  HoldSteps(true);
  RawClient client(port());
  client.Send(PostJson("/v1/completions", R"({"prompt":[1],"max_tokens":2})"));
  ASSERT_TRUE(WaitForStats([](const EngineStats& stats) { return stats.num_waiting > 0; }));
  EXPECT_EQ(Call("GET", "/health").status, 200);
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (Call("GET", "/health").status == 200 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  const RawResponse hung = Call("GET", "/health");
  EXPECT_EQ(ErrorOf(hung), R"(503 server_error "unavailable" null)");
  EXPECT_THAT(hung.body, HasSubstr("no engine step has ended for 0."));
  EXPECT_EQ(Call("GET", "/health/ready").status, 503);
  HoldSteps(false);
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_EQ(Call("GET", "/health").status, 200);
}

TEST_F(RoutesTest, ReadyUntilItDrains) {
  EXPECT_EQ(Call("GET", "/health/ready").body, R"({"status":"ok"})");
  engine_->Drain(absl::Now() + absl::Seconds(5));
  EXPECT_EQ(ErrorOf(Call("GET", "/health/ready")), R"(503 server_error "unavailable" null)");
  EXPECT_EQ(Call("GET", "/health").status, 200);
}

TEST_F(RoutesTest, UnknownPathsAreNotFound) {
  for (const char* path : {"/console", "/console/", "/v1", "/v1/completions/", "/v1/completion",
                           "/Health", "/health/x", "//health", "/v1/models/"}) {
    EXPECT_EQ(ErrorOf(Call("GET", path)), R"(404 invalid_request_error "not_found" null)") << path;
    EXPECT_EQ(Call("POST", path).status, 404) << path;
    EXPECT_EQ(Call("OPTIONS", path).status, 404) << path;
  }
}

TEST_F(RoutesTest, WrongMethodsAreToldTheRightOnes) {
  for (const Route& route : Routes()) {
    const std::string path = PathOf(route);
    const bool is_get = route.method == "GET";
    for (const char* method : {"PUT", "DELETE", "PATCH", is_get ? "POST" : "GET"}) {
      const RawResponse response = Call(method, path);
      EXPECT_EQ(ErrorOf(response), R"(405 invalid_request_error "method_not_allowed" null)");
      EXPECT_EQ(response.headers.at("allow"), is_get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    }
  }
  EXPECT_EQ(Call("HEAD", "/v1/completions").status, 405);
}

TEST_F(RoutesTest, HeadAndOptions) {
  RawClient client(port());
  client.Send("HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n" + Get("/version"));
  const RawResponse head = client.Receive(/*has_body=*/false);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "15");
  EXPECT_EQ(client.Receive().body, R"({"version":"1.2.3"})");
  const RawResponse options = Call("OPTIONS", "/v1/completions");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(options.headers.count("content-length"), 0U);
  EXPECT_EQ(Call("OPTIONS", "*").headers.at("allow"), "GET, HEAD, POST, OPTIONS");
}

// With keys: everything wants one but probes, and what browsers ask beforehand.
class ApiKeyTest : public RoutesTest {
 protected:
  void SetUp() override {
    limits_.shares_prefixes = true;
    api_.access.keys = *ApiKeys::Parse("key-of-team-a\nkey-of-team-b\n", "keys");
    Start();
  }
  static constexpr const char* kKey = "Authorization: Bearer key-of-team-b\r\n";
};

TEST_F(ApiKeyTest, EveryRouteButProbesWantsAKey) {
  for (const Route& route : Routes()) {
    const std::string path = PathOf(route);
    const RawResponse response = Call(std::string(route.method), path);
    if (route.access != RouteAccess::kKey) {
      EXPECT_EQ(response.status, 200) << path;
      continue;
    }
    EXPECT_EQ(ErrorOf(response), R"(401 invalid_request_error "invalid_api_key" null)") << path;
    EXPECT_EQ(response.headers.at("www-authenticate"), "Bearer");
    EXPECT_NE(Call(std::string(route.method), path, kKey).status, 401) << path;
    EXPECT_EQ(Call("OPTIONS", path).status, 204) << path;
  }
}

TEST_F(ApiKeyTest, NoSpellingOfAPathGoesAround) {
  for (const char* path : {"/v1/models?",
                           "/v1//models",
                           "//v1/models",
                           "/v1/./models",
                           "/v1/../v1/models",
                           "/health/../v1/models",
                           "/%76%31/models",
                           "/v1%2fmodels",
                           "/health%2f..%2fv1/models",
                           "/V1/models",
                           "/v1/models/",
                           "/v1/models;/health",
                           "/health/../metrics/../v1/models",
                           "http://h/v1/models",
                           "http://h/health/../v1/models",
                           "https://health/v1/models",
                           "/health%3f/../v1/models",
                           "/v1/models?/health",
                           "/v1/models#/health",
                           "/health/",
                           "/health%20",
                           "/health;x",
                           "/%2e/health/%2e%2e/v1/models",
                           "/nowhere",
                           "//",
                           "/console",
                           "/console/"}) {
    EXPECT_EQ(Call("GET", path).status, 401) << path;
    EXPECT_EQ(Call("HEAD", path).status, 401) << path;
  }
  for (const char* path :
       {"v1/models", "http:///v1/models", "/v1/models%00/health", "/%", "h:80"}) {
    EXPECT_EQ(Call("GET", path).status, 400) << path;
  }
  EXPECT_EQ(Call("GET", "http://h/health").status, 200);
  EXPECT_EQ(Call("POST", "/health").status, 401);
  EXPECT_EQ(Call("GET", "/nowhere", kKey).status, 404);
}

// Before its body is there: nobody without a key makes the server keep one.
TEST_F(ApiKeyTest, ABodyIsNotReadWithoutAKey) {
  const auto begin = [&](const std::string& path, const std::string& headers) {
    RawClient client(port());
    client.Send(absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n",
                             headers, "\r\n"));
    return client.Receive();
  };
  const std::string json = "Content-Type: application/json\r\n";
  const RawResponse refused = begin("/v1/completions", json);
  EXPECT_EQ(ErrorOf(refused), R"(401 invalid_request_error "invalid_api_key" null)");
  EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(begin("/v1/completions", "Expect: 100-continue\r\n").status, 401);
  EXPECT_EQ(begin("/nowhere", json).status, 401);
  EXPECT_EQ(begin("/nowhere", kKey).status, 404);
  EXPECT_EQ(begin("/v1/models", kKey).status, 405);
  EXPECT_EQ(begin("/health", "").status, 401);
  EXPECT_EQ(begin("/v1/completions", kKey).status, 415);
  EXPECT_EQ(begin("/v1/completions", kKey + json + "Expect: 100-continue\r\n").status, 100);
  EXPECT_THAT(Call("GET", "/metrics").body, HasSubstr(R"(code="401",route="/v1/completions"} 2)"));
}

TEST_F(ApiKeyTest, WrongKeysAreRefused) {
  for (const char* header :
       {"Authorization: Bearer key-of-team-c\r\n", "Authorization: key-of-team-b\r\n",
        "Authorization: Basic key-of-team-b\r\n", "X-Api-Key: key-of-team-b\r\n"}) {
    EXPECT_EQ(Call("GET", "/v1/models", header).status, 401) << header;
  }
  EXPECT_EQ(Call("GET", "/v1/models", kKey).status, 200);
}

TEST_F(ApiKeyTest, CachedPromptsAreNotSharedAcrossKeys) {
  std::string prompt = "[1";
  for (int i = 1; i < 4 * kPageTokens; ++i) absl::StrAppend(&prompt, ",", 1 + i % 7);
  const auto cached_tokens = [&](const std::string& key) {
    const std::string body = absl::StrCat(R"({"max_tokens":1,"prompt":)", prompt, "]}");
    const RawResponse response = Fetch(
        port(), absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ",
                             key, "\r\nContent-Type: application/json\r\nContent-Length: ",
                             body.size(), "\r\n\r\n", body));
    return JsonOf(response)["usage"]["prompt_tokens_details"]["cached_tokens"].get<int64_t>();
  };
  EXPECT_EQ(cached_tokens("key-of-team-a"), 0);
  EXPECT_GT(cached_tokens("key-of-team-a"), 0);
  EXPECT_EQ(cached_tokens("key-of-team-b"), 0);
  EXPECT_GT(cached_tokens("key-of-team-b"), 0);
}

// Without the page its paths are like any that do not exist.
TEST_F(ApiKeyTest, WithoutAConsoleThereIsNoPath) {
  EXPECT_EQ(Call("GET", "/").status, 200);
  api_.serves_console = false;
  for (const char* path : {"/", "/console/style.css"}) {
    EXPECT_EQ(Call("GET", path).status, 401) << path;
    EXPECT_EQ(ErrorOf(Call("GET", path, kKey)), R"(404 invalid_request_error "not_found" null)");
    EXPECT_EQ(Call("OPTIONS", path).status, 404) << path;
  }
}

class ProtectedProbesTest : public RoutesTest {
 protected:
  void SetUp() override {
    api_.access.keys = *ApiKeys::Parse("key-of-team-a\n", "keys");
    api_.access.protect_probes = true;
    Start();
  }
};

TEST_F(ProtectedProbesTest, WantAKeyToo) {
  for (const char* path : {"/health", "/health/ready", "/metrics"}) {
    EXPECT_EQ(Call("GET", path).status, 401) << path;
    EXPECT_EQ(Call("GET", path, "Authorization: Bearer key-of-team-a\r\n").status, 200) << path;
  }
}

TEST_F(RoutesTest, PostTakesJsonInUtf8Only) {
  const auto status_for = [&](const std::string& headers) {
    const std::string body = R"({"prompt":"w1"})";
    return Fetch(port(), absl::StrCat("POST /tokenize HTTP/1.1\r\nHost: h\r\n", headers,
                                      "Content-Length: ", body.size(), "\r\n\r\n", body))
        .status;
  };
  EXPECT_EQ(status_for("Content-Type: application/json\r\n"), 200);
  EXPECT_EQ(status_for("Content-Type: Application/JSON; charset=UTF-8\r\n"), 200);
  EXPECT_EQ(status_for("Content-Type: application/json ;charset=\"utf-8\"; x=y\r\n"), 200);
  EXPECT_EQ(status_for(""), 415);
  EXPECT_EQ(status_for("Content-Type: text/plain\r\n"), 415);
  EXPECT_EQ(status_for("Content-Type: application/x-www-form-urlencoded\r\n"), 415);
  EXPECT_EQ(status_for("Content-Type: application/jsonx\r\n"), 415);
  EXPECT_EQ(status_for("Content-Type: application/json; charset=latin1\r\n"), 415);
  EXPECT_EQ(status_for("Content-Type: application/json\r\nContent-Encoding: gzip\r\n"), 415);
  EXPECT_EQ(ErrorOf(Call("POST", "/tokenize")),
            R"(415 invalid_request_error "unsupported_media_type" null)");
}

TEST_F(RoutesTest, ResponsesAreCountedByRouteAndCode) {
  Call("GET", "/health");
  Call("GET", "/v1/models/some-client-text");
  Call("GET", "/nowhere/client-text");
  Call("DELETE", "/health");
  const std::string text = Call("GET", "/metrics").body;
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="200",route="/health"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="404",route="/v1/models/{id}"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="404",route="none"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="405",route="none"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="200",route="/v1/completions"} 0)"));
  EXPECT_EQ(text.find("client-text"), std::string::npos);
}

}  // namespace
}  // namespace nsa
