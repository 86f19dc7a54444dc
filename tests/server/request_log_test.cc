#include "server/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace nsa {
namespace {

using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;

// The lines that were written: name to JSON.
class RequestLogTest : public testing::Test {
 protected:
  using Line = std::map<std::string, std::string>;

  RequestLogTest() {
    options_.access = AccessLog::kOn;
    options_.probe_routes = {"/health"};
    options_.write = [this](LogLevel level, const LogFields& fields) {
      Line line;
      for (const auto& [name, json] : fields.fields()) line[name] = json;
      EXPECT_EQ(line.size(), fields.fields().size()) << "a name twice";
      lines_.push_back(line);
      levels_.push_back(level);
    };
  }

  std::shared_ptr<RequestRecord> Begin(const std::string& transport = "http") const {
    return std::make_shared<RequestRecord>(std::make_shared<const RequestLogOptions>(options_),
                                           transport, "id-1");
  }
  void LogHttp(const std::string& route, int status) const {
    const auto record = Begin();
    record->SetRoute(route);
    record->SetHttpStatus(status);
  }

  RequestLogOptions options_;
  std::vector<Line> lines_;
  std::vector<LogLevel> levels_;
};

GenerateEvent Delta(const std::string& text, FinishReason finish = FinishReason::kNone,
                    int64_t choice = 0) {
  GenerateEvent event{.choice = choice, .text = text};
  event.finish = finish;
  return event;
}

GenerateEvent Done(const Usage& usage) {
  GenerateEvent event{.kind = GenerateEvent::Kind::kDone};
  event.usage = usage;
  return event;
}

TEST_F(RequestLogTest, ALineComesWhenTheLastReferenceGoes) {
  auto first = Begin();
  auto last = first;
  first->SetHttpStatus(200);
  first->End();
  first.reset();
  EXPECT_TRUE(lines_.empty());
  last.reset();
  ASSERT_EQ(lines_.size(), 1U);
  EXPECT_EQ(lines_[0]["request_id"], "\"id-1\"");
  EXPECT_EQ(lines_[0]["transport"], "\"http\"");
  EXPECT_EQ(lines_[0]["route"], "\"none\"");
  EXPECT_EQ(lines_[0]["status"], "200");
  EXPECT_THAT(lines_[0], Contains(Key("total_ms")));
  for (const char* unknown : {"trace_id", "error", "finish_reasons", "choices", "prompt_tokens",
                              "queue_ms", "first_token_ms", "prompt", "output", "grpc_status"}) {
    EXPECT_THAT(lines_[0], Not(Contains(Key(unknown))));
  }
}

TEST_F(RequestLogTest, SaysWhatAGenerationCameTo) {
  {
    const auto record = Begin();
    record->SetTrace("4bf92f3577b34da6a3ce929d0e0e4736");
    record->SetRoute("/v1/completions");
    record->SetHttpStatus(200);
    record->AddChoices(2);
    record->AddChoices(2);
    record->OnEvent(0, Delta("a", FinishReason::kStop));
    record->OnEvent(1, Delta("b", FinishReason::kLength));
    record->OnEvent(0, Done({.prompt_tokens = 10,
                             .cached_prompt_tokens = 4,
                             .completion_tokens = 7,
                             .queue = absl::Milliseconds(1),
                             .prefill = absl::Milliseconds(2),
                             .decode = absl::Milliseconds(30)}));
    record->OnEvent(1, Done({.prompt_tokens = 5,
                             .cached_prompt_tokens = 1,
                             .completion_tokens = 3,
                             .queue = absl::Milliseconds(2),
                             .prefill = absl::Milliseconds(1),
                             .decode = absl::Milliseconds(4)}));
  }
  ASSERT_EQ(lines_.size(), 1U);
  const Line expected = {{"trace_id", "\"4bf92f3577b34da6a3ce929d0e0e4736\""},
                         {"route", "\"/v1/completions\""},
                         {"finish_reasons", "\"stop,length\""},
                         {"choices", "4"},
                         {"prompt_tokens", "15"},
                         {"cached_tokens", "5"},
                         {"output_tokens", "10"},
                         {"queue_ms", "2.000"},
                         {"prefill_ms", "2.000"},
                         {"decode_ms", "30.000"}};
  for (const auto& [name, json] : expected) EXPECT_EQ(lines_[0][name], json) << name;
  EXPECT_THAT(lines_[0], Contains(Key("first_token_ms")));
  EXPECT_THAT(lines_[0], Not(Contains(Key("prompt"))));
  EXPECT_THAT(lines_[0], Not(Contains(Key("output"))));
}

TEST_F(RequestLogTest, PhasesThatWereNotReachedAreLeftOut) {
  {
    const auto record = Begin("grpc");
    record->SetGrpcStatus(absl::StatusCode::kCancelled);
    record->SetError("client_left");
    record->SetError("another");
    record->AddChoices(1);
    GenerateEvent error{.kind = GenerateEvent::Kind::kError};
    error.usage = {.prompt_tokens = 3, .prefill = absl::InfiniteDuration()};
    record->OnEvent(0, error);
  }
  EXPECT_EQ(lines_[0]["grpc_status"], "\"CANCELLED\"");
  EXPECT_EQ(lines_[0]["error"], "\"client_left\"");
  EXPECT_EQ(lines_[0]["prompt_tokens"], "3");
  EXPECT_THAT(lines_[0], Not(Contains(Key("prefill_ms"))));
  EXPECT_THAT(lines_[0], Not(Contains(Key("first_token_ms"))));
  EXPECT_THAT(lines_[0], Not(Contains(Key("status"))));
}

TEST_F(RequestLogTest, ProbesAreLoggedAsAskedFor) {
  for (const auto& [access, num_lines] :
       {std::pair{AccessLog::kOn, 3U}, std::pair{AccessLog::kNoProbes, 2U},
        std::pair{AccessLog::kOff, 0U}}) {
    lines_.clear();
    options_.access = access;
    LogHttp("/health", 200);
    LogHttp("/health", 503);
    LogHttp("/v1/models", 200);
    EXPECT_EQ(lines_.size(), num_lines);
  }
}

TEST_F(RequestLogTest, TheLevelFollowsWhoIsAtFault) {
  for (const int status : {200, 400, 499, 429, 503, 504, 500}) LogHttp("/x", status);
  for (const absl::StatusCode status :
       {absl::StatusCode::kOk, absl::StatusCode::kInvalidArgument, absl::StatusCode::kCancelled,
        absl::StatusCode::kUnavailable, absl::StatusCode::kInternal}) {
    Begin("grpc")->SetGrpcStatus(status);
  }
  const auto info = LogLevel::kInfo, warning = LogLevel::kWarning, error = LogLevel::kError;
  EXPECT_THAT(levels_, testing::ElementsAre(info, info, info, warning, warning, warning, error,
                                            info, info, info, warning, error));
}

TEST_F(RequestLogTest, TextIsShownOnlyIfAskedForAndOnlySoMuch) {
  const auto log = [&](const decltype(GenerateCall::input)& input) {
    const auto record = Begin();
    record->SetHttpStatus(200);
    GenerateCall call;
    call.input = input;
    record->SetCalls({&call, 1});
    record->AddChoices(2);
    record->OnEvent(0, Delta("secret an"));
    record->OnEvent(0, Delta("of another choice", FinishReason::kNone, /*choice=*/1));
    record->OnEvent(1, Delta("of another prompt"));
    record->OnEvent(0, Delta("swér that goes on"));
    record->OnEvent(0, Delta("x"));  // would fit, but not here
  };
  log("a secret prompt");
  EXPECT_THAT(lines_.back(), Not(Contains(Key("prompt"))));
  EXPECT_THAT(lines_.back(), Not(Contains(Key("output"))));

  options_.prompt_bytes = 12;
  log("a secret prompt");
  EXPECT_EQ(lines_.back()["prompt"], "\"a secret pro\"");
  EXPECT_EQ(lines_.back()["output"], "\"secret answ\"") << "never inside a code point";
  log(std::vector<int64_t>{1, 22});
  EXPECT_EQ(lines_.back()["prompt"], "\"[1,22]\"");
  log(std::vector<int64_t>(1000000, 7));
  EXPECT_EQ(lines_.back()["prompt"], "\"[7,7,7,7,7,7\"");
  log(std::vector<ChatMessage>{{"user", "hi"}, {"x", std::string(1 << 20, 'y')}});
  EXPECT_EQ(lines_.back()["prompt"], R"("user: hi\nx: ")");
  log(std::string("\xFF\n\""));
  EXPECT_EQ(lines_.back()["prompt"], "\"\xEF\xBF\xBD\\n\\\"\"");
}

TEST(RequestRecord, WritesToTheLogAndWithoutOptionsNothing) {
  testing::internal::CaptureStderr();
  RequestRecord(nullptr, "http", "id").SetHttpStatus(500);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  RequestRecord(std::make_shared<RequestLogOptions>(RequestLogOptions{.access = AccessLog::kOn}),
                "http", "id")
      .SetHttpStatus(500);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::MatchesRegex("E .* request request_id=id transport=http route=none "
                                    "status=500 total_ms=.*\n"));
}

}  // namespace
}  // namespace nsa
