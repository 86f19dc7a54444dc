// Many clients at once, over real sockets.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using EndToEndTest = ApiTest;

TEST_F(EndToEndTest, ConcurrentRequestsGetTheirOwnAnswers) {
  Start();
  std::vector<std::thread> clients;
  std::atomic<int> num_right{0};
  std::atomic<int64_t> num_tokens{0};
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&, t] {
      RawClient client(port());
      for (int i = 0; i < 10; ++i) {
        const int32_t first = t * 10 + i;
        const bool stream = i % 2 == 1;
        client.Send(PostJson("/v1/completions",
                             absl::StrCat(R"({"prompt":[)", first, R"(,5],"max_tokens":20,"seed":)",
                                          i, R"(,"stream":)", stream ? "true" : "false", "}")));
        const RawResponse response = client.Receive();
        std::string text;
        if (stream) {
          for (const std::string& event : EventsOf(response.body)) {
            if (event == "[DONE]") continue;
            text += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
          }
        } else {
          const nlohmann::json json = JsonOf(response);
          text = json["choices"][0]["text"];
          num_tokens += json["usage"]["completion_tokens"].get<int64_t>();
        }
        if (text == Expected({first, 5}, 20, static_cast<uint64_t>(i))) ++num_right;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_right, 80);
  EXPECT_GT(num_tokens, 40);
  EXPECT_TRUE(WaitUntilIdle());
  const std::string metrics = Fetch(port(), Get("/metrics")).body;
  EXPECT_THAT(
      metrics,
      HasSubstr(
          R"(nsa_http_requests_total{engine="0",model_name="tiny/test",code="200",route="/v1/completions"} 80)"));
  EXPECT_EQ(executor_->violation(), "");
}

TEST_F(EndToEndTest, LeavingClientsDoNotDisturbTheOthers) {
  SleepPerStep(absl::Milliseconds(1));
  Start();
  std::vector<std::thread> clients;
  std::atomic<int> num_right{0};
  for (int t = 0; t < 6; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) {
        const std::string body =
            absl::StrCat(R"({"prompt":[)", t, ",", i, R"(],"max_tokens":40,"seed":1,"stream":)",
                         i % 2 ? "true" : "false", "}");
        if (t % 2 == 0) {
          RawClient leaving(port());
          leaving.Send(PostJson("/v1/completions", body));
          if (i % 3 == 0) absl::SleepFor(absl::Milliseconds(10));
          if (i % 4 == 0) leaving.Reset();
          continue;
        }
        const RawResponse response = Fetch(port(), PostJson("/v1/completions", body));
        std::string text;
        if (i % 2 == 0) {
          text = JsonOf(response)["choices"][0]["text"];
        } else {
          for (const std::string& event : EventsOf(response.body)) {
            if (event == "[DONE]") continue;
            text += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
          }
        }
        if (text == Expected({t, i}, 40, 1)) ++num_right;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_right, 24);
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(EndToEndTest, AChunkedBodyAndAPipelineOfRequests) {
  Start();
  RawClient client(port());
  const std::string body = R"({"prompt":[1,2],"max_tokens":4,"seed":3})";
  client.Send(
      absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
                   "Transfer-Encoding: chunked\r\n\r\na\r\n",
                   body.substr(0, 10), "\r\n", absl::Hex(body.size() - 10), "\r\n", body.substr(10),
                   "\r\n0\r\n\r\n", PostJson("/tokenize", R"({"prompt":"w1"})"), Get("/health")));
  EXPECT_EQ(JsonOf(client.Receive())["choices"][0]["text"], Expected({1, 2}, 4, 3));
  EXPECT_EQ(JsonOf(client.Receive())["count"], 2);
  EXPECT_EQ(client.Receive().body, R"({"status":"ok"})");
}

TEST_F(EndToEndTest, LimitsAndMalformedRequestsHaveTheErrorBody) {
  http_options_.max_body_bytes = 1000;
  http_options_.max_header_bytes = 500;
  Start();
  EXPECT_EQ(ErrorOf(Post("/tokenize", std::string(1001, ' '))),
            R"(413 invalid_request_error "request_too_large" null)");
  EXPECT_EQ(ErrorOf(Post("/tokenize", R"({"prompt":"w1"})" + std::string(985, ' '))).substr(0, 3),
            "200");
  EXPECT_EQ(ErrorOf(Fetch(port(), Get("/health", "X: " + std::string(500, 'x') + "\r\n"))),
            R"(431 invalid_request_error "request_too_large" null)");
  EXPECT_EQ(ErrorOf(Fetch(port(), "nonsense\r\n\r\n")),
            R"(400 invalid_request_error "malformed_request" null)");
  EXPECT_EQ(ErrorOf(Post("/v1/completions", "{\"prompt\":\"\xff\"}")),
            R"(400 invalid_request_error "invalid_json" null)");
}

TEST_F(EndToEndTest, ShutdownUnderLoadEndsEverything) {
  SleepPerStep(absl::Milliseconds(2));
  Start();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    clients.back()->Send(
        PostJson("/v1/completions",
                 absl::StrCat(R"({"prompt":[1],"max_tokens":400,"ignore_eos":true,"stream":)",
                              i % 2 ? "true" : "false", "}")));
  }
  ASSERT_TRUE(WaitForStats([](const EngineStats& s) { return s.num_admitted >= 4; }));
  server_->Shutdown(absl::Now() + absl::Milliseconds(50));
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_EQ(server_->num_connections(), 0);
}

}  // namespace
}  // namespace nsa
