#include "tests/engine/simulation.h"

#include <algorithm>
#include <set>

#include "engine/constraint/constraint_compiler.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr absl::Duration kStepTime = absl::Seconds(1);
constexpr int32_t kVocabSize = 50;

// Token t is the character '0' + t; the last one may end an output.
std::shared_ptr<const CompiledConstraint> Compile(const std::string& regex,
                                                  const std::vector<int32_t>& eos_tokens) {
  std::vector<std::string> bytes;
  for (int t = 0; t < kVocabSize; ++t) bytes.emplace_back(1, static_cast<char>('0' + t));
  ConstraintCompiler compiler(TokenTable::Create(bytes, eos_tokens).value(), {}, 1 << 20);
  return compiler.Compile({.kind = ConstraintKind::kRegex, .source = regex}).value();
}

const std::vector<std::shared_ptr<const CompiledConstraint>>& Constraints() {
  static const auto& constraints = *new std::vector<std::shared_ptr<const CompiledConstraint>>{
      Compile("[0-9]{5,30}", {kVocabSize - 1}), Compile("(?:A[B-F]{0,3};)*", {kVocabSize - 1}),
      Compile("[0-9A-Z]{3,12}", {})};
  return constraints;
}

bool CompletesConstraint(const Request& request, const std::vector<int32_t>& answer) {
  if (request.constraint == nullptr) return false;
  ConstraintState state(request.constraint);
  for (const int32_t token : answer) {
    EXPECT_TRUE(state.Advance(token)) << token << " in request " << request.id;
  }
  return state.is_complete();
}

bool IsSampled(const SampleRow& row) { return row.scored_token < 0; }

}  // namespace

Simulation::Simulation(uint64_t seed, int max_steps_ahead)
    : random_state_(seed),
      error_rate_(Chance(0.2) ? 0.05 : 0),
      limits_(RandomLimits()),
      executor_(limits_, max_steps_ahead),
      now_(absl::FromUnixSeconds(1'000'000)),
      core_(&executor_, limits_.num_pages * limits_.page_tokens, [this] { return now_; }) {
  executor_.on_step = [this](const Batch& batch) {
    num_step_tokens_ += batch.num_tokens();
    if (!Chance(error_rate_)) {
      num_step_rows_ += std::count_if(batch.rows.begin(), batch.rows.end(), IsSampled);
      return absl::OkStatus();
    }
    ++num_step_errors_;
    return absl::InternalError("injected");
  };
  executor_.is_finite = [this](const SampleRow& row) {
    if (!IsSampled(row) || !Chance(error_rate_ / 5)) return true;
    ++num_row_errors_;
    return false;
  };
  MakeClients();
}

// SplitMix64: the standard library's distributions differ from platform to platform.
int64_t Simulation::Uniform(int64_t low, int64_t high) {
  uint64_t z = random_state_ += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return low + static_cast<int64_t>(z % static_cast<uint64_t>(high - low + 1));
}

bool Simulation::Chance(double probability) {
  return static_cast<double>(Uniform(0, 999'999)) < probability * 1e6;
}

ExecutorLimits Simulation::RandomLimits() {
  const int64_t page_tokens = int64_t{1} << Uniform(0, 4);
  ExecutorLimits limits{.page_tokens = page_tokens,
                        .num_pages = Chance(0.2) ? 200 : Uniform(1, 24),
                        .lookback_tokens = FakeExecutor::kLookbackTokens,
                        .max_num_seqs = Uniform(1, 6),
                        .max_chunk_tokens = Chance(0.5) ? Uniform(1, 6) : Uniform(1, 40),
                        .max_batched_tokens = Chance(0.3) ? Uniform(1, 8) : Uniform(1, 64),
                        .vocab_size = kVocabSize,
                        .max_scored_rows = Uniform(1, 20),
                        .shares_prefixes = Chance(0.7)};
  limits.num_recent_pages = limits.MinRecentPages() + (Chance(0.5) ? Uniform(0, 20) : 0);
  return limits;
}

void Simulation::MakeClients() {
  const int64_t num_clients = Uniform(1, 16);
  for (int64_t i = 0; i < num_clients; ++i) MakeClient();
}

void Simulation::MakeClient() {
  auto client = std::make_shared<Client>();
  Request& request = client->request;
  const int64_t capacity = limits_.num_pages * limits_.page_tokens;
  // The longest that fit are the ones that leave no slack.
  const int64_t num_tokens =
      Chance(0.1) ? std::min<int64_t>(capacity, 160) : Uniform(1, std::min<int64_t>(capacity, 80));
  const int64_t num_prompt_tokens = num_tokens == 1 ? 1 : Uniform(1, num_tokens - 1);
  request.max_tokens = std::max<int64_t>(1, num_tokens - num_prompt_tokens);
  if (num_prompt_tokens + request.max_tokens > capacity) return;  // a pool of one token
  if (!clients_.empty() && Chance(0.5)) BeginAsAnother(num_prompt_tokens, request);
  while (static_cast<int64_t>(request.prompt.size()) < num_prompt_tokens) {
    request.prompt.push_back(static_cast<int32_t>(Uniform(0, kVocabSize - 1)));
  }
  if (Chance(0.3)) request.stop_token_ids = {static_cast<int32_t>(Uniform(0, kVocabSize - 1))};
  request.sampling.seed = static_cast<uint64_t>(Uniform(0, 3));
  if (Chance(0.2)) request.rules = RandomRules();
  if (Chance(0.2)) request.constraint = Constraints()[Uniform(0, 2)];
  request.scores_prompt = Chance(0.15);
  client->expected = FakeContinuation(request, kVocabSize);
  const int64_t previous = clients_.empty() ? 0 : clients_.back()->arrival_step;
  client->arrival_step = previous + (Chance(0.4) ? 0 : Uniform(0, 12));
  if (Chance(0.2)) client->cancel_step = client->arrival_step + Uniform(0, 40);
  if (Chance(0.15)) {
    request.deadline = now_ + kStepTime * (client->arrival_step + Uniform(0, 60));
  }
  if (!clients_.empty() && Chance(0.2)) TakeThePromptOfTheLast(*client);
  request.id = clients_.size();
  clients_.push_back(std::move(client));
}

// As a further choice of the same call.
void Simulation::TakeThePromptOfTheLast(Client& client) {
  const Client& last = *clients_.back();
  Request& request = client.request;
  request.prompt = last.request.prompt;
  request.cache_salt = last.request.cache_salt;
  request.max_tokens = last.request.max_tokens;
  request.same_prompt_as = last.request.id;
  client.arrival_step = last.arrival_step;
  client.expected = FakeContinuation(request, kVocabSize);
}

LogitRules Simulation::RandomRules() {
  LogitRules rules;
  if (Chance(0.5)) rules.frequency_penalty = static_cast<float>(Uniform(0, 4)) / 2;
  if (Chance(0.5)) rules.repetition_penalty = 1.25F;
  if (Chance(0.3)) rules.bias = {{.token = static_cast<int32_t>(Uniform(0, 9)), .bias = 1}};
  rules.min_tokens = Uniform(0, 3);
  return rules;
}

// With the beginning of an earlier request, its answer included.
void Simulation::BeginAsAnother(int64_t max_tokens, Request& request) {
  const Client& other = *clients_[Uniform(0, static_cast<int64_t>(clients_.size()) - 1)];
  std::vector<int32_t> tokens = other.request.prompt;
  tokens.insert(tokens.end(), other.expected.begin(), other.expected.end());
  const auto num_tokens = Uniform(1, std::min<int64_t>(max_tokens, std::ssize(tokens)));
  request.prompt.assign(tokens.begin(), tokens.begin() + num_tokens);
  request.cache_salt = Chance(0.9) ? other.request.cache_salt : "another";
}

void Simulation::Run(SimulationCounts& counts) {
  while (num_arrived_ < clients_.size() || !core_.idle()) {
    Arrive();
    CancelSome(counts);
    const int64_t num_preemptions = core_.stats().num_preemptions;
    for (const Delivery& delivery : core_.Step().deliveries) delivery.sink->OnToken(delivery.event);
    counts.num_preemptions += core_.stats().num_preemptions - num_preemptions;
    CheckStep(counts);
    if (testing::Test::HasFailure()) return;
    now_ += kStepTime;
    ++step_;
  }
  CheckTotals();
  counts.num_step_errors += num_step_errors_;
  counts.num_shared_tokens += core_.stats().num_prefix_shared_tokens;
  counts.num_row_errors += num_row_errors_;
  counts.num_unread_tokens += num_step_rows_ - num_row_errors_ - core_.stats().num_generated_tokens;
  for (int i = 0; i < kNumFinishReasons; ++i) {
    counts.num_finished[i] += core_.stats().num_finished[i];
  }
}

int64_t Simulation::TokensOf(const Request& request) const {
  return static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
}

void Simulation::Arrive() {
  while (num_arrived_ < clients_.size() && clients_[num_arrived_]->arrival_step <= step_) {
    const std::shared_ptr<Client>& client = clients_[num_arrived_++];
    // The scheduler's promise: the oldest advances by a token in each step, so a sequence ends
    // within as many steps as those before it and itself can have tokens. One that runs ahead
    // learns of a sequence's end a step later.
    client->last_step = step_ + executor_.max_steps_ahead();
    for (size_t id = 0; id < num_arrived_; ++id) {
      if (clients_[id]->ended) continue;
      client->last_step += TokensOf(clients_[id]->request) + executor_.max_steps_ahead();
    }
    core_.Submit(client->request, client, now_);
  }
}

void Simulation::CancelSome(SimulationCounts& counts) {
  for (size_t id = 0; id < num_arrived_; ++id) {
    const Client& client = *clients_[id];
    if (client.cancel_step != step_) continue;
    const Scheduler& scheduler = core_.scheduler();
    const auto is_client = [&](const Sequence* s) { return s->request.id == client.request.id; };
    if (std::any_of(scheduler.waiting().begin(), scheduler.waiting().end(), is_client)) {
      ++counts.num_cancelled_waiting;
    }
    for (const Sequence* sequence : scheduler.running()) {
      if (!is_client(sequence)) continue;
      ++(sequence->state == SequenceState::kDecode ? counts.num_cancelled_decode
                                                   : counts.num_cancelled_prefill);
    }
    core_.Cancel(client.request.id);
  }
}

void Simulation::CheckStep(SimulationCounts& counts) {
  ASSERT_EQ(executor_.violation(), "");
  CheckCache();
  CheckOrder();
  for (size_t id = 0; id < num_arrived_; ++id) CheckEvents(*clients_[id]);
  for (const Sequence* sequence : core_.scheduler().running()) {
    const int64_t capacity = static_cast<int64_t>(sequence->pages.size()) * limits_.page_tokens;
    if (capacity == sequence->num_cached_tokens && core_.stats().num_free_pages == 0) {
      ++counts.num_pauses;
    }
  }
}

// Every page is free or has as many owners as references, and a sequence has just enough for its
// tokens; the same for recent pages.
void Simulation::CheckCache() {
  const Scheduler& scheduler = core_.scheduler();
  std::map<PageId, int64_t> pages, recent_pages;
  for (const Sequence* sequence : scheduler.running()) {
    const int64_t num_needed =
        (sequence->num_cached_tokens + limits_.page_tokens - 1) / limits_.page_tokens;
    ASSERT_EQ(static_cast<int64_t>(sequence->pages.size()), num_needed);
    for (PageId page : sequence->pages) ++pages[page];
    const int64_t first_token =
        std::max<int64_t>(0, sequence->num_cached_tokens - limits_.lookback_tokens);
    ASSERT_EQ(sequence->first_recent_page, first_token / limits_.page_tokens);
    ASSERT_EQ(sequence->first_recent_page + static_cast<int64_t>(sequence->recent_pages.size()),
              num_needed);
    for (PageId page : sequence->recent_pages) ++recent_pages[page];
    ASSERT_GE(sequence->num_uncached_tokens(), 1);
  }
  for (const Sequence* sequence : scheduler.waiting()) {
    ASSERT_TRUE(sequence->pages.empty());
    ASSERT_TRUE(sequence->recent_pages.empty());
    ASSERT_EQ(sequence->num_cached_tokens, 0);
  }
  CheckPool(scheduler.pages(), pages);
  CheckPool(scheduler.recent_pages(), recent_pages);
  ASSERT_EQ(core_.stats().num_kept_pages, scheduler.pages().num_kept());
  ASSERT_TRUE(limits_.shares_prefixes || scheduler.pages().num_kept() == 0);
  // Whoever is in the index is held or kept.
  ASSERT_GE(scheduler.prefix_index().num_entries(), scheduler.pages().num_kept());
  ASSERT_EQ(core_.stats().num_free_pages, scheduler.pages().num_free());
  ASSERT_EQ(core_.stats().num_running, static_cast<int64_t>(scheduler.running().size()));
  ASSERT_EQ(core_.stats().num_waiting, static_cast<int64_t>(scheduler.waiting().size()));
}

void Simulation::CheckPool(const PagePool& pool, const std::map<PageId, int64_t>& num_owners) {
  for (const auto& [page, owners] : num_owners) {
    ASSERT_EQ(pool.num_references(page), owners) << "page " << page;
  }
  ASSERT_EQ(pool.num_free() + static_cast<int64_t>(num_owners.size()), pool.num_pages());
}

// Running, then waiting, both in order of arrival.
void Simulation::CheckOrder() {
  std::vector<RequestId> ids;
  for (const Sequence* sequence : core_.scheduler().running()) ids.push_back(sequence->request.id);
  for (const Sequence* sequence : core_.scheduler().waiting()) ids.push_back(sequence->request.id);
  ASSERT_TRUE(std::is_sorted(ids.begin(), ids.end()));
}

void Simulation::CheckEvents(Client& client) {
  for (; client.num_checked < client.events.size(); ++client.num_checked) {
    const TokenEvent& event = client.events[client.num_checked];
    ASSERT_FALSE(client.ended) << "an event after the end of request " << client.request.id;
    ASSERT_EQ(event.id, client.request.id);
    if (event.finish == FinishReason::kNone) continue;
    client.ended = true;
    CheckEnd(client, event);
  }
  ASSERT_TRUE(client.ended || step_ < client.last_step)
      << "request " << client.request.id << " waits too long";
  ASSERT_TRUE(client.ended || client.cancel_step == -1 || step_ < client.cancel_step);
  ASSERT_TRUE(client.ended || now_ < client.request.deadline);
}

void Simulation::CheckEnd(const Client& client, const TokenEvent& event) {
  std::vector<int32_t> tokens;
  for (const TokenEvent& earlier : client.events) {
    if (earlier.has_token) tokens.push_back(earlier.token);
  }
  CheckScores(client, !tokens.empty());
  const std::vector<int32_t>& expected = client.expected;
  ASSERT_LE(tokens.size(), expected.size());
  ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.begin()))
      << "request " << client.request.id << " differs from its solo run";
  const auto& stops = client.request.stop_token_ids;
  const bool stopped = CompletesConstraint(client.request, tokens) ||
                       (!stops.empty() && !tokens.empty() && tokens.back() == stops[0]);
  switch (event.finish) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      ASSERT_EQ(tokens.size(), expected.size());
      ASSERT_EQ(event.finish, stopped ? FinishReason::kStop : FinishReason::kLength);
      ASSERT_EQ(event.num_prompt_tokens_done, static_cast<int64_t>(client.request.prompt.size()));
      break;
    case FinishReason::kCancelled:
      ASSERT_EQ(step_, client.cancel_step);
      break;
    case FinishReason::kTimeout:
      ASSERT_GE(now_, client.request.deadline);
      break;
    case FinishReason::kError:
      ASSERT_GT(num_step_errors_ + num_row_errors_, 0);
      ASSERT_FALSE(event.error.ok());
      break;
    case FinishReason::kNone:
      FAIL();
  }
}

// Every prompt token behind the first is scored once, in order, before the first token comes.
void Simulation::CheckScores(const Client& client, bool has_tokens) {
  const std::vector<int32_t>& prompt = client.request.prompt;
  size_t num_scored = 1;
  for (const TokenEvent& event : client.events) {
    for (const PromptScore& score : event.prompt_scores) {
      ASSERT_LT(num_scored, prompt.size());
      ASSERT_EQ(score.token, prompt[num_scored]);
      const SampleRow row{.position = static_cast<int64_t>(num_scored), .num_top_logprobs = 0};
      const absl::Span<const int32_t> prefix = absl::MakeConstSpan(prompt).first(num_scored++);
      ASSERT_EQ(score.logprob, FakeSample(prefix, {}, row, kVocabSize).logprob);
    }
  }
  ASSERT_TRUE(client.request.scores_prompt || num_scored == 1);
  ASSERT_TRUE(!client.request.scores_prompt || !has_tokens || num_scored == prompt.size());
}

// Nothing is held, and the counters agree with what the clients saw.
void Simulation::CheckTotals() {
  const EngineStats& stats = core_.stats();
  ASSERT_EQ(stats.num_free_pages, limits_.num_pages);
  ASSERT_EQ(core_.scheduler().recent_pages().num_free(), limits_.num_recent_pages);
  std::array<int64_t, kNumFinishReasons> num_finished{};
  int64_t num_generated = 0, num_prompt = 0, num_shared = 0, num_preemptions = 0;
  KvTraffic traffic;
  for (const std::shared_ptr<Client>& client : clients_) {
    ASSERT_TRUE(client->ended);
    const TokenEvent& last = client->events.back();
    ++num_finished[static_cast<size_t>(last.finish)];
    const auto num_tokens = std::count_if(client->events.begin(), client->events.end(),
                                          [](const TokenEvent& event) { return event.has_token; });
    num_generated += num_tokens;
    if (num_tokens > 0) num_prompt += static_cast<int64_t>(client->request.prompt.size());
    num_preemptions += last.times.num_preemptions;
    traffic.read_bytes += last.traffic.read_bytes;
    traffic.dense_bytes += last.traffic.dense_bytes;
    num_shared += last.num_prompt_tokens_shared;
  }
  ASSERT_EQ(stats.num_finished, num_finished);
  ASSERT_EQ(stats.num_generated_tokens, num_generated);
  ASSERT_EQ(stats.num_prompt_tokens, num_prompt);
  ASSERT_EQ(stats.num_preemptions, num_preemptions);
  ASSERT_EQ(stats.num_prefix_shared_tokens, num_shared);
  ASSERT_LE(stats.num_prefix_shared_tokens, stats.num_prefix_queried_tokens);
  ASSERT_EQ(stats.e2e_latency.total(), clients_.size());
  ASSERT_EQ(stats.request_generated_tokens.sum, static_cast<double>(num_generated));
  ASSERT_EQ(stats.step_tokens.sum, static_cast<double>(num_step_tokens_));
  ASSERT_EQ(stats.traffic.read_bytes, traffic.read_bytes);
  ASSERT_EQ(stats.traffic.dense_bytes, traffic.dense_bytes);
}

}  // namespace nsa
