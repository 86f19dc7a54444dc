// Clients that leave: by every way of leaving, in every phase of their call. Whatever they had is
// free after the step in which the server hears of it, and the tokens of the others do not change.
//
// Steps are held one by one, so that "after the step" is meant as it is said.

#include <grpcpp/grpcpp.h>

#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "server/grpc/grpc_server.h"
#include "tests/server/http/api_fixture.h"
#include "tests/support/service_harness.h"

namespace nsa {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr int64_t kChunkTokens = 16, kPromptWords = 100;
constexpr int64_t kVictimTokens = 900, kCompanyTokens = 1500;
constexpr uint64_t kCompanySeed = 7;

enum class Phase : uint8_t { kQueued, kPrefill, kDecoding, kFlushing };
enum class Way : uint8_t {
  kHttpStreamClose,
  kHttpStreamReset,
  kHttpWholeClose,
  kHttpWholeReset,
  kGrpcCancel,
  kGrpcDeadline
};

// Holds the engine in each step until it is let go.
class StepGate {
 public:
  absl::Status OnStep(const Batch& batch) {
    std::unique_lock lock(mutex_);
    batch_ = batch;
    ++num_begun_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return num_allowed_ >= num_begun_; });
    return absl::OkStatus();
  }
  // Lets the step in progress end and waits for the one after it, which is held; its batch. An
  // empty one: it does not come.
  Batch NextStep() {
    std::unique_lock lock(mutex_);
    const int64_t num_before = num_begun_;
    num_allowed_ = num_begun_;
    changed_.notify_all();
    const bool has_come = changed_.wait_for(lock, absl::ToChronoNanoseconds(kPatience),
                                            [&] { return num_begun_ > num_before; });
    return has_come ? batch_ : Batch();
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    num_allowed_ = INT64_MAX;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Batch batch_;
  int64_t num_begun_ = 0, num_allowed_ = 0;
};

// Counts the cancellations that the engine has been told of.
class WatchedService : public GenerationService {
 public:
  using GenerationService::GenerationService;

  absl::StatusOr<std::unique_ptr<GenerateHandle>> Start(
      PreparedCall prepared, std::shared_ptr<GenerateObserver> observer) override {
    auto handle = GenerationService::Start(std::move(prepared), std::move(observer));
    if (!handle.ok()) return handle;
    return std::make_unique<Handle>(*std::move(handle), &num_cancels_);
  }
  int64_t num_cancels() const { return num_cancels_; }

 private:
  class Handle : public GenerateHandle {
   public:
    Handle(std::unique_ptr<GenerateHandle> handle, std::atomic<int64_t>* num_cancels)
        : handle_(std::move(handle)), num_cancels_(num_cancels) {}
    void Cancel() override {
      handle_->Cancel();
      ++*num_cancels_;
    }
    int64_t num_prompt_tokens() const override { return handle_->num_prompt_tokens(); }

   private:
    const std::unique_ptr<GenerateHandle> handle_;
    std::atomic<int64_t>* const num_cancels_;
  };

  std::atomic<int64_t> num_cancels_ = 0;
};

std::string Words(int64_t num_words) {
  std::string words;
  for (int64_t i = 0; i < num_words; ++i) absl::StrAppend(&words, "w", i % 80, " ");
  return words;
}

// A client with one call.
class Victim {
 public:
  virtual ~Victim() = default;
  virtual void Leave() = 0;
};

class HttpVictim : public Victim {
 public:
  HttpVictim(int port, Way way, const std::string& content)
      : resets_(way == Way::kHttpStreamReset || way == Way::kHttpWholeReset),
        client_(port, /*receive_buffer_bytes=*/4096) {
    const bool streams = way == Way::kHttpStreamClose || way == Way::kHttpStreamReset;
    client_.Send(PostJson(
        "/v1/chat/completions",
        absl::StrCat(R"({"messages":[{"role":"user","content":")", content, R"("}],"max_tokens":)",
                     kVictimTokens, R"(,"ignore_eos":true,"logprobs":true,"top_logprobs":20,)",
                     R"("stream":)", streams ? "true" : "false", "}")));
  }
  void Leave() override { resets_ ? client_.Reset() : client_.Close(); }

 private:
  const bool resets_;
  RawClient client_;
};

class GrpcVictim : public Victim {
 public:
  GrpcVictim(int port, Way way, const std::string& content, absl::Time deadline)
      : waits_(way == Way::kGrpcDeadline), stub_(v1::GenerationService::NewStub(Channel(port))) {
    v1::GenerateRequest request;
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(content);
    request.set_max_tokens(kVictimTokens);
    request.set_ignore_eos(true);
    request.set_logprobs(20);
    if (waits_) context_.set_deadline(absl::ToChronoTime(deadline));
    reader_ = stub_->Generate(&context_, request);
  }
  ~GrpcVictim() override {
    context_.TryCancel();
    reader_->Finish();
  }
  void Leave() override {
    if (!waits_) context_.TryCancel();  // else the deadline passes by itself
  }

 private:
  // Takes in 64 KiB that nobody reads, and no more.
  static std::shared_ptr<grpc::Channel> Channel(int port) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port),
                                     grpc::InsecureChannelCredentials(), arguments);
  }

  const bool waits_;
  grpc::ClientContext context_;
  const std::unique_ptr<v1::GenerationService::Stub> stub_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

class CancelMatrixTest : public ApiTest,
                         public testing::WithParamInterface<std::tuple<Way, Phase>> {
 protected:
  CancelMatrixTest() {
    limits_.num_pages = 256;
    limits_.max_num_seqs = 2;
    limits_.max_chunk_tokens = kChunkTokens;
    engine_options_.max_model_tokens = 2000;
    http_options_.max_buffered_bytes = 16 << 20;  // who does not read is not cut off
  }
  ~CancelMatrixTest() override {
    gate_.Open();
    victim_.reset();
    grpc_.reset();
  }

  void SetUp() override {
    Start();
    executor_->on_step = [this](const Batch& batch) { return gate_.OnStep(batch); };
    GrpcOptions options{.port = 0, .max_queued_bytes = 16 << 20};
    options.on_end = [this](std::string_view, int) { ++num_grpc_ends_; };
    auto grpc = GrpcServer::Start(options);
    ASSERT_TRUE(grpc.ok()) << grpc.status();
    grpc_ = *std::move(grpc);
    grpc_->Serve(service_.get());
  }

  std::unique_ptr<GenerationService> MakeService(
      GenerationService::Dependencies dependencies) override {
    auto service = std::make_unique<WatchedService>(std::move(dependencies));
    watched_ = service.get();
    return service;
  }

  static Way way() { return std::get<Way>(GetParam()); }
  static Phase phase() { return std::get<Phase>(GetParam()); }
  static bool is_grpc() { return way() == Way::kGrpcCancel || way() == Way::kGrpcDeadline; }
  // In the queue the victim waits for two.
  static int64_t num_companions() { return phase() == Phase::kQueued ? 2 : 1; }

  void StartCompany() {
    for (int64_t i = 0; i < num_companions(); ++i) {
      company_.push_back(std::make_shared<CollectingObserver>());
      GenerateCall call{.input = std::vector<int64_t>{i, 5, 9},
                        .max_tokens = kCompanyTokens,
                        .seed = kCompanySeed,
                        .ignore_eos = true};
      ASSERT_TRUE(service_->Generate(call, company_.back()).ok());
    }
    while (gate_.NextStep().num_seqs < num_companions()) {
    }
  }

  void StartVictim() {
    const std::string content = Words(phase() == Phase::kFlushing ? 1 : kPromptWords);
    deadline_ = absl::Now() + (phase() == Phase::kFlushing ? absl::Seconds(5) : absl::Seconds(1));
    if (is_grpc()) {
      victim_ = std::make_unique<GrpcVictim>(grpc_->port(), way(), content, deadline_);
    } else {
      victim_ = std::make_unique<HttpVictim>(port(), way(), content);
    }
    ASSERT_TRUE(WaitForStats([](const EngineStats& stats) {
      return stats.num_running + stats.num_waiting == num_companions() + 1;
    }));
  }

  // Steps until the victim, behind the companions in the batch, is in its phase.
  void ReachPhase() {
    Batch batch = gate_.NextStep();
    const auto position = [&batch] { return batch.token_position.back(); };
    switch (phase()) {
      case Phase::kQueued:
        ASSERT_EQ(batch.num_seqs, 2);
        break;
      case Phase::kPrefill:
        while (batch.num_seqs < 2 || position() < 2 * kChunkTokens) batch = gate_.NextStep();
        ASSERT_LT(position(), kPromptWords);
        break;
      case Phase::kDecoding:
        while (batch.num_seqs < 2 || position() < kPromptWords + 20) batch = gate_.NextStep();
        ASSERT_EQ(batch.num_tokens(), 2);
        break;
      case Phase::kFlushing:
        while (batch.num_seqs < 2) batch = gate_.NextStep();
        while (batch.num_seqs == 2) batch = gate_.NextStep();
        break;
    }
    ASSERT_TRUE(way() != Way::kGrpcDeadline || absl::Now() < deadline_) << "too slow for this test";
  }

  static bool WaitUntil(const std::function<bool()>& is_met) {
    const absl::Time end = absl::Now() + kPatience;
    while (!is_met() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
    return is_met();
  }

  // The server knows that the victim has left: the engine has been told, or where it was done with
  // the call before, what was still to be written is dropped.
  bool WaitUntilNoticed() {
    return WaitUntil([this] {
      if (phase() != Phase::kFlushing) return watched_->num_cancels() > 0;
      return is_grpc() ? num_grpc_ends_ > 0 : server_->num_connections() == 0;
    });
  }

  StepGate gate_;
  WatchedService* watched_ = nullptr;
  std::unique_ptr<GrpcServer> grpc_;
  std::atomic<int> num_grpc_ends_ = 0;
  std::vector<std::shared_ptr<CollectingObserver>> company_;
  std::unique_ptr<Victim> victim_;
  absl::Time deadline_;
};

TEST_P(CancelMatrixTest, FreesEverythingWithinAStepAndDisturbsNobody) {
  StartCompany();
  StartVictim();
  ReachPhase();
  if (phase() == Phase::kFlushing) {
    EXPECT_TRUE(is_grpc() ? num_grpc_ends_ == 0 : server_->num_connections() == 1);
  }
  victim_->Leave();
  ASSERT_TRUE(WaitUntilNoticed());

  const Batch step = gate_.NextStep();  // the first one behind the step that was in progress
  EXPECT_EQ(step.num_seqs, num_companions());
  gate_.NextStep();
  const EngineStats stats = engine_->Stats();  // as of the end of `step`
  const std::set<int32_t> pages(step.page_table.begin(), step.page_table.end());
  const auto num_held = static_cast<int64_t>(pages.size()) - (pages.contains(-1) ? 1 : 0);
  EXPECT_EQ(stats.num_pages - stats.num_free_pages, num_held);
  EXPECT_EQ(stats.num_running, num_companions());
  EXPECT_EQ(stats.num_waiting, 0);
  const bool is_cancelled = phase() != Phase::kFlushing;
  EXPECT_EQ(stats.num_finished[static_cast<size_t>(FinishReason::kCancelled)], is_cancelled);

  gate_.Open();
  for (int64_t i = 0; i < num_companions(); ++i) {
    company_[i]->Wait();
    Request request{.prompt = {static_cast<int32_t>(i), 5, 9}, .max_tokens = kCompanyTokens};
    request.sampling.seed = kCompanySeed;
    EXPECT_EQ(company_[i]->Tokens(), FakeContinuation(request, WordTokenizer::kVocabSize));
  }
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_EQ(executor_->violation(), "");
  EXPECT_TRUE(WaitUntil([this] { return server_->num_connections() == 0; }));
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Way, Phase>>& info) {
  constexpr const char* kWays[] = {"HttpStreamClose", "HttpStreamReset", "HttpWholeClose",
                                   "HttpWholeReset",  "GrpcCancel",      "GrpcDeadline"};
  constexpr const char* kPhases[] = {"Queued", "Prefill", "Decoding", "Flushing"};
  return absl::StrCat(kWays[static_cast<size_t>(std::get<Way>(info.param))], "While",
                      kPhases[static_cast<size_t>(std::get<Phase>(info.param))]);
}

INSTANTIATE_TEST_SUITE_P(
    EveryWayInEveryPhase, CancelMatrixTest,
    testing::Combine(
        testing::Values(Way::kHttpStreamClose, Way::kHttpStreamReset, Way::kHttpWholeClose,
                        Way::kHttpWholeReset, Way::kGrpcCancel, Way::kGrpcDeadline),
        testing::Values(Phase::kQueued, Phase::kPrefill, Phase::kDecoding, Phase::kFlushing)),
    NameOf);

}  // namespace
}  // namespace nsa
