// Simulation of the service: a random life of GenerationService over the real Engine with its
// thread, a fake model, which runs a step ahead if the seed is odd, and a fake tokenizer. Calls
// have penalties and constraints. The engine's thread is held inside of every step, and what
// clients do happens while it is, so a seed gives the same life every time. Checked: what a call is
// told is what an undisturbed run would say, cut at its stop strings; it ends exactly once;
// afterwards nothing is held, and everything that was admitted has ended.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/generation_service.h"
#include "tests/server/service_simulation.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

using Kind = GenerateEvent::Kind;

constexpr int kNumSeeds = 4000;

// What an undisturbed run tells of one choice.
struct Expected {
  std::string text;
  FinishReason finish = FinishReason::kLength;
  int64_t num_tokens = 0;
};
Expected ExpectedOf(const Client& client, int64_t choice, const LetterTokenizer& tokenizer) {
  Request request = client.request;
  request.sampling.seed += static_cast<uint64_t>(choice);
  Expected expected;
  std::optional<ConstraintState> state;
  if (request.constraint != nullptr) state.emplace(request.constraint);
  for (const int32_t token : FakeContinuation(request, tokenizer.vocab_size())) {
    ++expected.num_tokens;
    expected.text += tokenizer.TokenBytes(token);
    const bool completes = state.has_value() && state->Advance(token) && state->is_complete();
    if (completes || (token == LetterTokenizer::kEos && !client.call.ignore_eos)) {
      expected.finish = FinishReason::kStop;
    }
    size_t begin = std::string::npos;  // of the stop string that begins first
    for (const std::string& stop : client.call.stop) {
      begin = std::min(begin, expected.text.find(stop));
    }
    if (begin == std::string::npos) continue;
    expected.finish = FinishReason::kStop;
    if (!client.call.include_stop_text) expected.text.resize(begin);  // else it ends with it
    break;
  }
  return expected;
}

struct Counts {
  int64_t num_done = 0, num_errors = 0, num_cancelled = 0, num_refused = 0, num_abandoned = 0;
  int64_t num_stops = 0, num_preemptions = 0, num_drained = 0;
  int64_t num_constrained = 0, num_penalised = 0;  // of those that are done
};

class ServiceSimulation {
 public:
  ServiceSimulation(uint64_t seed, LetterConstraints* constraints)
      : random_(seed),
        constraints_(constraints->given()),
        executor_(Limits(), static_cast<int>(seed % 2)),
        engine_(Options(), &executor_),
        service_([this, constraints] {
          GenerationService::Dependencies dependencies{
              .engine = &engine_, .tokenizer = &tokenizer_, .constraints = constraints->queue()};
          dependencies.model.name = "letters";
          dependencies.model.config.vocab_size = tokenizer_.vocab_size();
          dependencies.model.config.eos_tokens = {LetterTokenizer::kEos};
          dependencies.model.max_request_tokens = engine_.max_request_tokens();
          return dependencies;
        }()) {
    executor_.on_step = [this](const Batch& /*batch*/) { return gate_.Pass(); };
  }

  // What is wrong, or nothing.
  std::string Run(Counts& counts) {
    const int64_t num_rounds = Uniform(10, 60), drain_round = Uniform(5, 120);
    std::thread drain;
    for (int64_t round = 0; round < num_rounds; ++round) {
      if (round == drain_round) drain = std::thread([this] { Drain(); });
      if (drain.joinable()) {
        while (!engine_.Stats().draining) std::this_thread::yield();
      }
      while (Chance(0.4)) Prepare(counts);
      while (!prepared_.empty() && Chance(0.6)) StartOne(counts);
      for (const auto& client : clients_) {
        if (client->num_ends == 0 && !client->was_cancelled && Chance(0.02)) {
          client->was_cancelled = true;
          client->handle->Cancel();
        }
      }
      StepOnce();
    }
    counts.num_abandoned += static_cast<int64_t>(prepared_.size());
    prepared_.clear();  // their places go back
    while (std::any_of(clients_.begin(), clients_.end(),
                       [](const auto& client) { return client->num_ends == 0; })) {
      StepOnce();
    }
    while (AwaitRest()) StepOnce();
    if (drain.joinable()) {
      drain.join();
      ++counts.num_drained;
    }
    return Check(counts);
  }

  // Everything that calls were told.
  std::string Story() const {
    std::string story;
    for (const auto& client : clients_) {
      for (const GenerateEvent& event : client->events) {
        absl::StrAppend(&story, static_cast<int>(event.kind), ":", event.choice, ":", event.text,
                        ":", event.prompt_tokens_done, ":", static_cast<int>(event.finish), " ");
      }
      story += '\n';
    }
    return story;
  }

 private:
  int64_t Uniform(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  bool Chance(double probability) { return std::bernoulli_distribution(probability)(random_); }

  ExecutorLimits Limits() {
    ExecutorLimits limits{.page_tokens = 4,
                          .num_pages = Uniform(12, 40),
                          .max_num_seqs = Uniform(1, 5),
                          .max_chunk_tokens = Uniform(1, 8)};
    limits.max_batched_tokens = limits.max_num_seqs + Uniform(1, 12);
    limits.vocab_size = tokenizer_.vocab_size();
    limits.shares_prefixes = Chance(0.5);
    return limits;
  }
  EngineOptions Options() {
    return {.admission = {.max_queued_requests = Uniform(1, 8)}, .on_lost = {}};
  }
  void Drain() { engine_.Drain(absl::InfiniteFuture()); }

  void Prepare(Counts& counts) {
    GenerateCall call{.input = std::vector<int64_t>{}};
    auto& prompt = std::get<std::vector<int64_t>>(call.input);
    prompt.resize(static_cast<size_t>(Uniform(1, 14)));
    for (int64_t& token : prompt)
      token = Uniform(0, Chance(0.5) ? 0 : LetterTokenizer::kLetters - 1);
    call.max_tokens = Uniform(1, 20);
    call.n = Chance(0.3) ? Uniform(2, 3) : 1;
    call.seed = static_cast<uint64_t>(Uniform(0, 1000));
    call.temperature = 1.0;
    call.ignore_eos = Chance(0.3);
    call.include_stop_text = Chance(0.3);
    call.priority = Uniform(0, 2);
    for (int64_t i = Chance(0.5) ? Uniform(1, 2) : 0; i > 0; --i) {
      const auto letter = [&] { return static_cast<char>('a' + Uniform(0, 7)); };
      call.stop.push_back(Chance(0.3) ? std::string(1, letter()) : std::string{letter(), letter()});
    }
    if (Chance(0.3)) call.frequency_penalty = static_cast<double>(Uniform(1, 4)) / 2;
    if (Chance(0.2)) call.min_tokens = Uniform(0, *call.max_tokens);
    if (Chance(0.3)) call.constraints = {constraints_[static_cast<size_t>(Uniform(0, 2))]};
    auto prepared = service_.Prepare({&call, 1});
    if (!prepared.ok()) {
      ++counts.num_refused;
      return;
    }
    auto client = std::make_shared<Client>(call, &gate_);
    client->request = prepared->front().request;
    prepared_.emplace_back(std::move(client), std::move(prepared->front()));
  }

  void StartOne(Counts& counts) {
    auto [client, prepared] = std::move(prepared_.front());
    prepared_.erase(prepared_.begin());
    if (Chance(0.1)) {  // the client is gone before
      ++counts.num_abandoned;
      return;
    }
    gate_.CallStarted();
    auto handle = service_.Start(std::move(prepared), client);
    if (!handle.ok()) {
      gate_.CallEnded();
      error_ = absl::StrCat("a place was not kept: ", handle.status().ToString());
      return;
    }
    client->handle = *std::move(handle);
    clients_.push_back(std::move(client));
    AwaitRest();  // an idle engine has begun its step
  }

  void StepOnce() {
    gate_.Open(Chance(0.02) ? absl::InternalError("a step failed") : absl::OkStatus());
    AwaitRest();
  }

  // Until a step is held (true) or the engine has nothing to do: a request whose stop string was
  // found has told its end and is the engine's for a moment more, and a step may be left that was
  // launched ahead.
  bool AwaitRest() {
    while (!gate_.AwaitStep()) {
      const EngineStats stats = engine_.Stats();
      if (stats.num_running + stats.num_waiting + executor_.num_in_flight() == 0) return false;
      std::this_thread::yield();
    }
    return true;
  }

  std::string Check(Counts& counts) {
    if (!error_.empty()) return error_;
    if (!executor_.violation().empty()) return executor_.violation();
    for (const auto& client : clients_) {
      if (client->num_ends != 1 || client->num_late != 0) return "a call did not end exactly once";
      if (std::string wrong = CheckTexts(*client, counts); !wrong.empty()) return wrong;
    }
    const EngineStats stats = engine_.Stats();
    counts.num_preemptions += stats.num_preemptions;
    int64_t num_finished = 0;
    for (const int64_t num : stats.num_finished) num_finished += num;
    if (stats.num_running + stats.num_waiting + stats.num_preparing != 0) return "something waits";
    if (stats.num_free_pages != stats.num_pages) return "pages are held";
    if (num_finished != stats.num_admitted) return "not everything that was admitted has ended";
    return "";
  }

  std::string CheckTexts(const Client& client, Counts& counts) const {
    const bool is_done = client.events.back().kind == Kind::kDone;
    if (!is_done && client.was_cancelled) ++counts.num_cancelled;
    if (!is_done && !client.was_cancelled) ++counts.num_errors;
    counts.num_done += is_done ? 1 : 0;
    counts.num_constrained += is_done && client.request.constraint != nullptr ? 1 : 0;
    counts.num_penalised += is_done && client.request.rules.HasPenalties() ? 1 : 0;
    int64_t num_tokens = 0;
    for (int64_t choice = 0; choice < *client.call.n; ++choice) {
      const Expected expected = ExpectedOf(client, choice, tokenizer_);
      std::string text;
      std::vector<FinishReason> finishes;
      for (const GenerateEvent& event : client.events) {
        if (event.kind != Kind::kDelta || event.choice != choice) continue;
        if (!finishes.empty()) return "a choice goes on after its end";
        text += event.text;
        if (event.finish != FinishReason::kNone) finishes.push_back(event.finish);
      }
      num_tokens += expected.num_tokens;
      const auto describe = [&] {
        return absl::StrCat("choice ", choice, " says '", text, "' instead of '", expected.text,
                            "'");
      };
      if (finishes.empty()) {
        if (is_done) return absl::StrCat("choice ", choice, " has no end");
        if (!expected.text.starts_with(text)) return describe();
        continue;
      }
      if (text != expected.text) return describe();
      if (finishes.front() != expected.finish) return absl::StrCat("choice ", choice, ": reason");
      counts.num_stops += expected.finish == FinishReason::kStop ? 1 : 0;
    }
    if (is_done && client.events.back().usage.completion_tokens != num_tokens) {
      return absl::StrCat("usage: ", client.events.back().usage.completion_tokens, " of ",
                          num_tokens);
    }
    return "";
  }

  std::mt19937_64 random_;
  const LetterTokenizer tokenizer_;
  const std::vector<std::shared_ptr<const GivenConstraint>> constraints_;
  Gate gate_;
  FakeExecutor executor_;
  Engine engine_;
  GenerationService service_;
  std::vector<std::pair<std::shared_ptr<Client>, PreparedCall>> prepared_;
  std::vector<std::shared_ptr<Client>> clients_;
  std::string error_;
};

TEST(ServiceSimulationTest, EveryCallIsToldWhatItWouldBeAlone) {
  LetterConstraints constraints{LetterTokenizer()};
  Counts counts;
  uint64_t seed = 0;
  std::string wrong;
  testing::internal::CaptureStderr();  // a line of log for every step that fails
  for (; seed < kNumSeeds && wrong.empty(); ++seed) {
    wrong = ServiceSimulation(seed, &constraints).Run(counts);
  }
  testing::internal::GetCapturedStderr();
  ASSERT_EQ(wrong, "") << "seed " << seed - 1;
  EXPECT_GT(counts.num_done, kNumSeeds);
  EXPECT_GT(counts.num_stops, kNumSeeds);
  EXPECT_GT(counts.num_errors, kNumSeeds / 20);
  EXPECT_GT(counts.num_cancelled, kNumSeeds / 20);
  EXPECT_GT(counts.num_refused, kNumSeeds / 20);
  EXPECT_GT(counts.num_abandoned, kNumSeeds / 20);
  EXPECT_GT(counts.num_preemptions, kNumSeeds / 20);
  EXPECT_GT(counts.num_drained, kNumSeeds / 20);
  EXPECT_GT(counts.num_constrained, kNumSeeds / 20);
  EXPECT_GT(counts.num_penalised, kNumSeeds / 20);
}

TEST(ServiceSimulationTest, ASeedIsOneLife) {
  LetterConstraints constraints{LetterTokenizer()};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Counts counts;
    ServiceSimulation first(seed, &constraints), second(seed, &constraints);
    first.Run(counts);
    second.Run(counts);
    ASSERT_EQ(first.Story(), second.Story()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace nsa
