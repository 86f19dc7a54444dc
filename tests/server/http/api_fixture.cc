#include "tests/server/http/api_fixture.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/http/routes.h"

namespace nsa {
namespace {

constexpr char kChatTemplate[] =
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}assistant";

}  // namespace

ApiTest::ApiTest() {
  limits_ = {.page_tokens = kPageTokens,
             .num_pages = kNumPages,
             .max_num_seqs = 8,
             .max_chunk_tokens = 64,
             .max_batched_tokens = 128,
             .vocab_size = WordTokenizer::kVocabSize};
  engine_options_.max_model_tokens = kMaxModelTokens;
  http_options_.port = 0;
}

// The order of a server's end: transports, then the engine, then what it works on.
ApiTest::~ApiTest() {
  HoldSteps(false);
  SleepPerStep(absl::ZeroDuration());
  server_.reset();
  constraints_.reset();
  engine_.reset();
}

void ApiTest::Start() {
  auto chat_template = ChatTemplate::Compile(kChatTemplate, "<s>", "</s>");
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  chat_template_ = *std::move(chat_template);
  executor_ = std::make_unique<FakeExecutor>(limits_);
  executor_->on_step = [this](const Batch&) { return OnStep(); };
  engine_ = std::make_unique<Engine>(engine_options_, executor_.get());

  GenerationService::Dependencies dependencies;
  dependencies.engine = engine_.get();
  dependencies.tokenizer = &tokenizer_;
  dependencies.chat_template = chat_template_.get();
  constraints_ = std::make_unique<ConstraintQueue>(
      TokenTable::Create(tokenizer_, std::vector<int32_t>{WordTokenizer::kEos}).value(),
      constraint_options_);
  dependencies.constraints = constraints_.get();
  dependencies.liveness_timeout = liveness_timeout_;
  ModelInfo& model = dependencies.model;
  model.name = "tiny/test";
  model.attention = "nsa";
  model.config.nsa.emplace();
  model.max_request_tokens = engine_->max_request_tokens();
  model.page_tokens = kPageTokens;
  model.num_pages = kNumPages;
  model.created = absl::FromUnixSeconds(1700000000);
  model.config.vocab_size = WordTokenizer::kVocabSize;
  model.config.eos_tokens = {WordTokenizer::kEos};
  service_ = MakeService(std::move(dependencies));

  Metrics::Options options;
  options.version = "1.2.3";
  options.engine.model_name = "tiny/test";
  options.engine.page_tokens = kPageTokens;
  options.engine.num_pages = kNumPages;
  options.engine.stats = [this] { return service_->engine_stats(); };
  for (const Route& route : Routes()) options.http_routes.emplace_back(route.path);
  metrics_ = std::make_unique<Metrics>(std::move(options));

  HttpAccess access = std::move(api_.access);  // a test may have set these two
  const UnknownFields unknown_fields = api_.unknown_fields;
  api_ = MakeApiContext(service_.get(), metrics_.get(), "1.2.3");
  api_.access = std::move(access);
  api_.unknown_fields = unknown_fields;
  api_.whole_answers = std::make_shared<ByteBudget>(max_whole_answer_bytes_);
  http_options_.on_response = [this](const std::string& route, int status) {
    metrics_->CountHttpRequest(route, status);
  };
  SetApiHooks(&api_, &http_options_);
  auto server = HttpServer::Start(http_options_, MakeApiHandler(&api_));
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
}

absl::Status ApiTest::OnStep() {
  absl::Duration pause;
  {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [this] { return !held_; });
    if (failing_) return absl::InternalError("secret of the engine");
    pause = pause_;
  }
  absl::SleepFor(pause);
  return absl::OkStatus();
}

void ApiTest::HoldSteps(bool held) {
  const std::lock_guard lock(mutex_);
  held_ = held;
  released_.notify_all();
}

void ApiTest::FailSteps(bool failing) {
  const std::lock_guard lock(mutex_);
  failing_ = failing;
}

void ApiTest::SleepPerStep(absl::Duration pause) {
  const std::lock_guard lock(mutex_);
  pause_ = pause;
}

bool ApiTest::WaitForStats(const std::function<bool(const EngineStats&)>& is_met) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!is_met(engine_->Stats())) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

bool ApiTest::WaitUntilIdle() {
  return WaitForStats([](const EngineStats& stats) {
    return stats.num_running == 0 && stats.num_waiting == 0 &&
           stats.num_free_pages == stats.num_pages;
  });
}

std::string ApiTest::Expected(const std::vector<int32_t>& prompt, int64_t max_tokens,
                              uint64_t seed) {
  Request request{.prompt = prompt, .max_tokens = max_tokens};
  request.sampling.seed = seed;
  request.stop_token_ids = {WordTokenizer::kEos};
  return tokenizer_.Decode(FakeContinuation(request, WordTokenizer::kVocabSize));
}

nlohmann::json JsonOf(const RawResponse& response) {
  return nlohmann::json::parse(response.body, nullptr, /*allow_exceptions=*/false);
}

std::string ErrorOf(const RawResponse& response) {
  const nlohmann::json json = JsonOf(response);
  if (!json.is_object() || !json.contains("error")) {
    return absl::StrCat(response.status, " without an error: ", response.body);
  }
  const nlohmann::json& error = json["error"];
  return absl::StrCat(response.status, " ", error["type"].get<std::string>(), " ",
                      error["code"].dump(), " ", error["param"].dump());
}

std::vector<std::string> EventsOf(const std::string& body) {
  std::vector<std::string> events;
  for (size_t begin = 0; begin < body.size();) {
    const size_t end = body.find("\n\n", begin);
    if (end == std::string::npos) {
      ADD_FAILURE() << "an event without end: " << body.substr(begin);
      break;
    }
    const std::string event = body.substr(begin, end - begin);
    if (event.starts_with("data: ")) {
      events.push_back(event.substr(6));
    } else if (!event.starts_with(": ")) {
      ADD_FAILURE() << "not an event: " << event;
    }
    EXPECT_EQ(event.find('\n'), std::string::npos) << event;
    begin = end + 2;
  }
  return events;
}

}  // namespace nsa
