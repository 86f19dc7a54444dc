#include "server/http/generation_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class GenerationExchangeTest : public ApiTest {
 protected:
  // A request that runs until it is cancelled, as far as a test can tell.
  static std::string Endless(const std::string& extra = "") {
    return PostJson("/v1/completions",
                    R"({"prompt":[1,2,3],"max_tokens":500,"ignore_eos":true)" + extra + "}");
  }
  // What a stream says.
  static std::string TextOf(const RawResponse& response) {
    std::string text;
    for (const std::string& event : EventsOf(response.body)) {
      if (event == "[DONE]") continue;
      text += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
    }
    return text;
  }
  bool WaitForRunning(int64_t num_running) {
    return WaitForStats([&](const EngineStats& s) { return s.num_running == num_running; });
  }
};

// The threads on which something happens.
class ThreadLog {
 public:
  void Note() {
    const std::lock_guard lock(mutex_);
    threads_.insert(std::this_thread::get_id());
  }
  std::set<std::thread::id> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(threads_, {});
  }

 private:
  std::mutex mutex_;
  std::set<std::thread::id> threads_;
};

class LoggingTokenizer : public WordTokenizer {
 public:
  explicit LoggingTokenizer(ThreadLog* log) : log_(log) {}
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override {
    log_->Note();
    return WordTokenizer::Encode(text, add_special_tokens);
  }
  std::string Decode(const std::vector<int32_t>& tokens) const override {
    log_->Note();
    return WordTokenizer::Decode(tokens);
  }

 private:
  ThreadLog* const log_;
};

class LoggingShape : public ResponseShape {
 public:
  explicit LoggingShape(ThreadLog* log) : ResponseShape({}), log_(log) {}
  std::vector<std::string> Chunks(int64_t /*choice*/, const GenerateEvent& delta) override {
    log_->Note();
    return {Chunk({{"text", delta.text}})};
  }

 protected:
  const char* BodyObject() const override { return "body"; }
  const char* ChunkObject() const override { return "chunk"; }
  Json ChoiceOf(int64_t /*index*/, const CollectedChoice& choice) const override {
    log_->Note();
    return {{"text", choice.text}};
  }
  Json LogprobsOf(std::span<const TokenLogprob> /*logprobs*/,
                  TextPosition* /*position*/) const override {
    return {};
  }

 private:
  ThreadLog* const log_;
};

TEST_F(GenerationExchangeTest, TheStepThreadNeitherTokenizesNorWritesJson) {
  Start();
  ThreadLog steps, encodes, json;
  executor_->on_step = [&](const Batch&) {
    steps.Note();
    return absl::OkStatus();
  };
  const LoggingTokenizer tokenizer(&encodes);
  GenerationService service(
      {.engine = engine_.get(), .tokenizer = &tokenizer, .model = service_->model()});
  auto server = HttpServer::Start({.port = 0}, [&](const HttpRequest& request, auto responder) {
    const auto parsed = ParseCompletionRequest(request.body);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    GenerationExchange::Start(&service, *parsed, std::make_unique<LoggingShape>(&json),
                              {responder, request.record});
  });
  ASSERT_TRUE(server.ok());
  for (const char* stream : {"true", "false"}) {
    const RawResponse response = Fetch(
        (*server)->port(),
        PostJson("/",
                 absl::StrCat(R"({"prompt":"w1 w2","max_tokens":20,"n":2,"echo":true,"stream":)",
                              stream, R"(,"ignore_eos":true})")));
    EXPECT_EQ(response.status, 200);
    const auto step_threads = steps.Take(), encode_threads = encodes.Take();
    const auto json_threads = json.Take();
    EXPECT_EQ(step_threads.size(), 1U);
    EXPECT_FALSE(encode_threads.empty() || json_threads.empty());
    EXPECT_FALSE(encode_threads.contains(*step_threads.begin())) << stream;
    EXPECT_FALSE(json_threads.contains(*step_threads.begin())) << stream;
  }
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, TimeRunsAndIsCountedSinceTheRequestArrived) {
  Start();
  ThreadLog json;
  constexpr absl::Duration kWait = absl::Milliseconds(50);  // for its turn, as it were
  auto server = HttpServer::Start({.port = 0}, [&](const HttpRequest& request, auto responder) {
    const auto parsed = ParseCompletionRequest(request.body);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    absl::SleepFor(kWait);
    GenerationExchange::Start(service_.get(), *parsed, std::make_unique<LoggingShape>(&json),
                              {responder, request.record});
  });
  ASSERT_TRUE(server.ok());
  const auto post = [&](const std::string& timeout) {
    return Fetch((*server)->port(),
                 PostJson("/", R"({"prompt":[1],"max_tokens":1,"timeout":)" + timeout + "}"));
  };
  const RawResponse late = post("0.05");
  EXPECT_EQ(late.status, 504);
  EXPECT_THAT(late.body, HasSubstr(R"("code":"timeout")"));
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
  EXPECT_EQ(post("60").status, 200);
  const EngineStats stats = engine_->Stats();
  EXPECT_GE(stats.time_to_first_token.sum, absl::ToDoubleSeconds(kWait));
  EXPECT_GE(stats.e2e_latency.sum, absl::ToDoubleSeconds(kWait));
}

TEST_F(GenerationExchangeTest, WholeAnswersAreBoundedTogether) {
  max_whole_answer_bytes_ = 20'000;
  Start();
  const auto ask = [&](int max_tokens, const std::string& extra = "") {
    return Fetch(port(),
                 PostJson("/v1/completions",
                          absl::StrCat(R"({"prompt":[1,2,3],"ignore_eos":true,"logprobs":5,)",
                                       R"("max_tokens":)", max_tokens, extra, "}")));
  };
  int64_t num_bytes = 0;
  for (int i = 0; i < 6; ++i) {  // more than the limit one after another
    const RawResponse answer = ask(40);
    EXPECT_EQ(answer.status, 200);
    num_bytes += static_cast<int64_t>(answer.body.size());
  }
  EXPECT_GT(num_bytes, max_whole_answer_bytes_);
  const RawResponse refused = ask(400);
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("answers that are not streamed have reached their limit"));
  EXPECT_THAT(refused.body, HasSubstr(R"("code":"unavailable")"));
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_THAT(ask(400, R"(,"stream":true)").body, HasSubstr("data: [DONE]"));
  EXPECT_EQ(ask(40).status, 200);
}

TEST_F(GenerationExchangeTest, ADepartedClientFreesItsPagesWhileStreaming) {
  SleepPerStep(absl::Milliseconds(20));
  Start();
  RawClient client(port());
  client.Send(Endless(R"(,"stream":true)"));
  EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: {"));
  EXPECT_LT(engine_->Stats().num_free_pages, kNumPages);
  client.Close();
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_LT(engine_->Stats().num_generated_tokens, 400);
}

TEST_F(GenerationExchangeTest, ADepartedClientFreesItsPagesBeforeTheResponse) {
  SleepPerStep(absl::Milliseconds(20));
  Start();
  RawClient client(port());
  client.Send(Endless(R"(,"n":2)"));
  ASSERT_TRUE(WaitForRunning(2));
  client.Reset();
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_LT(engine_->Stats().num_generated_tokens, 800);
}

TEST_F(GenerationExchangeTest, ADepartedClientLeavesTheQueue) {
  limits_.max_num_seqs = 1;
  SleepPerStep(absl::Milliseconds(5));
  Start();
  RawClient running(port()), queued(port());
  running.Send(Endless(R"(,"stream":true)"));
  ASSERT_TRUE(WaitForRunning(1));
  queued.Send(Endless());
  ASSERT_TRUE(WaitForStats([](const EngineStats& s) { return s.num_waiting == 1; }));
  queued.Close();
  ASSERT_TRUE(WaitForStats([](const EngineStats& s) { return s.num_waiting == 0; }));
  // The other one is none the wiser.
  SleepPerStep(absl::ZeroDuration());
  const RawResponse response = running.Receive();
  EXPECT_THAT(response.body, HasSubstr("data: [DONE]\n\n"));
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, ASlowReaderIsDroppedAndCancelled) {
  http_options_.max_buffered_bytes = 8192;
  http_options_.socket_send_buffer_bytes = 4096;
  Start();
  SleepPerStep(absl::Milliseconds(1));
  RawClient slow(port(), /*receive_buffer_bytes=*/4096);
  slow.Send(Endless(R"(,"stream":true,"logprobs":5)"));
  EXPECT_TRUE(WaitForStats([](const EngineStats& s) {
    return s.num_finished[static_cast<size_t>(FinishReason::kCancelled)] == 1;
  }));
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, ASlowReaderDoesNotSlowTheOthers) {
  constexpr int64_t kFastTokens = 250;
  // More than all of the fast stream, less than what the slow one makes meanwhile.
  http_options_.max_buffered_bytes = 64 << 10;
  http_options_.socket_send_buffer_bytes = 4096;
  Start();
  const std::string request = PostJson(
      "/v1/completions", absl::StrCat(R"({"prompt":[4,5,6],"ignore_eos":true,"stream":true,)",
                                      R"("seed":1,"max_tokens":)", kFastTokens, "}"));
  const std::string alone = TextOf(Fetch(port(), request));
  HoldSteps(true);
  SleepPerStep(absl::Milliseconds(1));
  RawClient slow(port(), /*receive_buffer_bytes=*/4096), fast(port());
  slow.Send(Endless(R"(,"stream":true,"logprobs":5)"));
  fast.Send(request);
  ASSERT_TRUE(
      WaitForStats([](const EngineStats& s) { return s.num_running + s.num_waiting == 2; }));
  HoldSteps(false);
  const RawResponse beside = fast.Receive();
  EXPECT_LT(beside.body.size(), 64U << 10);
  EXPECT_THAT(beside.body, HasSubstr("data: [DONE]"));
  EXPECT_EQ(TextOf(beside), alone);
  EXPECT_TRUE(WaitForStats([](const EngineStats& s) {
    return s.num_finished[static_cast<size_t>(FinishReason::kCancelled)] == 1;
  }));
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, AFullQueueAnswers429) {
  limits_.max_num_seqs = 1;
  engine_options_.admission.max_queued_requests = 1;
  Start();
  HoldSteps(true);
  RawClient first(port()), second(port());
  first.Send(Endless());
  second.Send(Endless());
  RawResponse refused;
  // One runs, one waits; then there is no room.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  std::vector<std::unique_ptr<RawClient>> more;
  while (refused.status == 0 && absl::Now() < deadline) {
    if (engine_->Stats().num_rejected[0] > 0) {
      refused = Fetch(port(), Endless());
      break;
    }
    more.push_back(std::make_unique<RawClient>(port()));
    more.back()->Send(Endless());
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_EQ(ErrorOf(refused), R"(429 server_error "overloaded" null)");
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  // The same for a stream: the refusal is a plain response.
  EXPECT_EQ(Fetch(port(), Endless(R"(,"stream":true)")).status, 429);
  HoldSteps(false);
}

TEST_F(GenerationExchangeTest, ADrainingEngineAnswers503AndHealthStaysUp) {
  Start();
  engine_->Drain(absl::InfinitePast());
  const RawResponse response = Fetch(port(), Endless());
  EXPECT_EQ(ErrorOf(response), R"(503 server_error "unavailable" null)");
  EXPECT_EQ(response.headers.at("retry-after"), "5");
  EXPECT_EQ(Fetch(port(), Get("/health")).status, 200);
}

TEST_F(GenerationExchangeTest, AtTheDrainDeadlineRequestsEndWithAnError) {
  SleepPerStep(absl::Milliseconds(20));
  Start();
  RawClient stream(port()), whole(port());
  stream.Send(Endless(R"(,"stream":true)"));
  whole.Send(Endless());
  ASSERT_TRUE(WaitForRunning(2));
  engine_->Drain(absl::Now());
  EXPECT_EQ(ErrorOf(whole.Receive()), R"(503 server_error "unavailable" null)");
  const std::vector<std::string> events = EventsOf(stream.Receive().body);
  EXPECT_THAT(events.back(), HasSubstr(R"({"error":{)"));
  EXPECT_THAT(events.back(), HasSubstr(R"("code":"unavailable")"));
}

TEST_F(GenerationExchangeTest, APassedDeadlineAnswers504) {
  Start();
  SleepPerStep(absl::Milliseconds(20));
  EXPECT_EQ(ErrorOf(Fetch(port(), Endless(R"(,"timeout":0.2)"))),
            R"(504 server_error "timeout" null)");
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, AnEngineFaultAnswers500AndTellsNothing) {
  Start();
  FailSteps(true);
  const RawResponse response = Fetch(port(), Endless());
  EXPECT_EQ(ErrorOf(response), R"(500 server_error "internal_error" null)");
  EXPECT_THAT(response.body, Not(HasSubstr("secret")));
  FailSteps(false);
  EXPECT_EQ(Fetch(port(), PostJson("/v1/completions", R"({"prompt":[1],"max_tokens":2})")).status,
            200);
}

TEST_F(GenerationExchangeTest, AnErrorInMidStreamIsTheLastEvent) {
  Start();
  SleepPerStep(absl::Milliseconds(10));
  RawClient client(port());
  client.Send(Endless(R"(,"stream":true)"));
  client.ReadUntil("\n\n");
  FailSteps(true);
  const RawResponse rest{.body = client.ReadUntil("0\r\n\r\n")};
  EXPECT_THAT(rest.body,
              HasSubstr("data: {\"error\":{\"message\":\"the server failed while handling this "
                        "request\",\"type\":\"server_error\",\"param\":null,"
                        "\"code\":\"internal_error\"}}\n\n\r\n0\r\n\r\n"));
  EXPECT_THAT(rest.body, Not(HasSubstr("[DONE]")));
  EXPECT_THAT(rest.body, Not(HasSubstr(R"("finish_reason":")")));
  EXPECT_THAT(rest.body, Not(HasSubstr("secret")));
  // The connection is good for the next request.
  FailSteps(false);
  client.Send(Get("/health"));
  EXPECT_EQ(client.Receive().status, 200);
}

TEST_F(GenerationExchangeTest, TheStreamBeginsBeforeTheFirstToken) {
  Start();
  HoldSteps(true);
  RawClient client(port());
  client.Send(Endless(R"(,"stream":true)"));
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  client.Close();
  HoldSteps(false);
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, AStreamWithoutTokensIsPinged) {
  EXPECT_EQ(HttpOptions().heartbeat_interval, absl::Seconds(15));
  http_options_.heartbeat_interval = absl::Milliseconds(50);
  Start();
  HoldSteps(true);
  RawClient client(port());
  client.Send(Endless(R"(,"stream":true)"));
  client.ReadUntil("\r\n\r\n");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client.ReadUntil(": ping\n\n\r\n"), "8\r\n: ping\n\n\r\n");
  }
  client.Close();
  HoldSteps(false);
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(GenerationExchangeTest, ARefusedListLeavesNothingInTheEngine) {
  engine_options_.admission.max_queued_requests = 3;
  Start();
  const auto post = [&](const std::string& body) { return Post("/v1/completions", body); };
  EXPECT_EQ(ErrorOf(post(R"({"prompt":["w1","w2",""],"max_tokens":1})")),
            R"(400 invalid_request_error "invalid_value" "prompt")");
  EXPECT_EQ(ErrorOf(post(R"({"prompt":["w1","w2"],"n":2})")),
            R"(400 invalid_request_error "invalid_value" "prompt")");
  EXPECT_EQ(ErrorOf(post(R"({"prompt":"w1","n":4})")),
            R"(400 invalid_request_error "invalid_value" "n")");
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
  EXPECT_EQ(engine_->Stats().num_rejected[0], 0);
}

}  // namespace
}  // namespace nsa
