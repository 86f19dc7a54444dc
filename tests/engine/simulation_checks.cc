// What must hold after every step of a simulation, and at its end.

#include <algorithm>

#include "gtest/gtest.h"
#include "tests/engine/simulation.h"

namespace nsa {
namespace {

bool CompletesConstraint(const Request& request, const std::vector<int32_t>& answer) {
  if (request.constraint == nullptr) return false;
  ConstraintState state(request.constraint);
  for (const int32_t token : answer) {
    EXPECT_TRUE(state.Advance(token)) << token << " in request " << request.id;
  }
  return state.is_complete();
}

auto Place(const Sequence* sequence) { return std::pair(sequence->rank(), sequence->request.id); }

bool IsBefore(const Sequence* a, const Sequence* b) { return Place(a) < Place(b); }

}  // namespace

void Simulation::CheckStep() {
  ASSERT_EQ(executor_.violation(), "");
  CheckCache();
  CheckOrder();
  for (size_t id = 0; id < num_arrived_; ++id) CheckEvents(*clients_[id]);
  for (const Sequence* sequence : core_.scheduler().running()) {
    const int64_t capacity = static_cast<int64_t>(sequence->pages.size()) * limits_.page_tokens;
    if (capacity == sequence->num_cached_tokens && core_.stats().num_free_pages == 0) {
      ++counts_.num_pauses;
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
  ASSERT_GE(scheduler.prefix_index().num_pages(), scheduler.pages().num_kept());
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

void Simulation::CheckOrder() {
  const auto& running = core_.scheduler().running();
  const auto& waiting = core_.scheduler().waiting();
  ASSERT_TRUE(std::is_sorted(running.begin(), running.end(), IsBefore));
  ASSERT_TRUE(std::is_sorted(waiting.begin(), waiting.end(), IsBefore));
}

void Simulation::CheckEvents(Client& client) {
  for (; client.num_checked < client.events.size(); ++client.num_checked) {
    const TokenEvent& event = client.events[client.num_checked];
    ASSERT_FALSE(client.ended) << "an event after the end of request " << client.request.id;
    ASSERT_EQ(event.id, client.request.id);
    if (event.has_token) ++client.num_tokens;
    if (event.finish == FinishReason::kNone) continue;
    client.ended = true;
    CheckEnd(client, event);
  }
  if (client.ended) return;
  ASSERT_FALSE(lost_) << "request " << client.request.id << " survives the device";
  ASSERT_LT(step_, client.last_step) << "request " << client.request.id << " waits too long";
  ASSERT_TRUE(client.cancel_step == kNever || step_ < client.cancel_step);
  ASSERT_TRUE(drain_end_ == kNever || step_ < drain_end_);
  ASSERT_LT(step_began_, client.request.deadline);
}

void Simulation::CheckEnd(const Client& client, const TokenEvent& event) {
  std::vector<int32_t> tokens;
  for (const TokenEvent& earlier : client.events) {
    if (earlier.has_token) tokens.push_back(earlier.token);
  }
  CheckScores(client, !tokens.empty());
  CheckShared(client, event.num_prompt_tokens_shared);
  const std::vector<int32_t>& expected = client.expected;
  ASSERT_LE(tokens.size(), expected.size());
  ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.begin()))
      << "request " << client.request.id << " differs from its solo run";
  CheckReason(client, event, tokens);
}

void Simulation::CheckReason(const Client& client, const TokenEvent& event,
                             const std::vector<int32_t>& tokens) {
  const bool is_draining = drain_step_ != kNever && step_ >= drain_step_;
  const auto& stops = client.request.stop_token_ids;
  const bool stopped = CompletesConstraint(client.request, tokens) ||
                       (!stops.empty() && !tokens.empty() && tokens.back() == stops[0]);
  switch (event.finish) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      if (is_draining) ++counts_.num_drained;
      if (!event.has_token) {  // found by its owner
        ASSERT_EQ(event.finish, FinishReason::kStop);
        ASSERT_EQ(std::ssize(tokens), client.num_wanted_tokens);
        break;
      }
      ASSERT_EQ(tokens.size(), client.expected.size());
      ASSERT_EQ(event.finish, stopped ? FinishReason::kStop : FinishReason::kLength);
      ASSERT_EQ(event.num_prompt_tokens_done, static_cast<int64_t>(client.request.prompt.size()));
      break;
    case FinishReason::kCancelled:
      ASSERT_TRUE(step_ == client.cancel_step || step_ == drain_end_);
      break;
    case FinishReason::kTimeout:
      ASSERT_GE(now_, client.request.deadline);
      break;
    case FinishReason::kError:
      ASSERT_GT(counts_.num_step_errors + counts_.num_memory_errors + counts_.num_row_errors +
                    (lost_ ? 1 : 0),
                0);
      ASSERT_FALSE(event.error.ok());
      break;
    case FinishReason::kNone:
      FAIL();
  }
}

// Nobody finds in the cache what no request of the same salt can have left there.
void Simulation::CheckShared(const Client& client, int64_t num_shared_tokens) {
  if (num_shared_tokens == 0) return;
  const std::vector<int32_t>& prompt = client.request.prompt;
  // Inside a page only a whole prompt's end is shared.
  ASSERT_TRUE(num_shared_tokens % limits_.page_tokens == 0 ||
              num_shared_tokens + 1 == std::ssize(prompt));
  ASSERT_LT(num_shared_tokens, std::ssize(prompt));
  const bool has_source = std::any_of(
      clients_.begin(), clients_.begin() + static_cast<int64_t>(num_arrived_),
      [&](const std::shared_ptr<Client>& other) {
        if (other.get() == &client || other->request.cache_salt != client.request.cache_salt) {
          return false;
        }
        std::vector<int32_t> tokens = other->request.prompt;
        tokens.insert(tokens.end(), other->expected.begin(), other->expected.end());
        return num_shared_tokens <= std::ssize(tokens) &&
               std::equal(prompt.begin(), prompt.begin() + num_shared_tokens, tokens.begin());
      });
  ASSERT_TRUE(has_source) << "request " << client.request.id << " shares another salt's pages";
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
      ASSERT_EQ(score.logprob, FakeSample(prefix, {}, row, limits_.vocab_size).logprob);
    }
  }
  ASSERT_TRUE(client.request.scores_prompt || num_scored == 1);
  ASSERT_TRUE(!client.request.scores_prompt || !has_tokens || num_scored == prompt.size());
}

// The counters agree with what the clients saw.
void Simulation::CheckTotals() {
  const EngineStats& stats = core_.stats();
  std::array<int64_t, kNumFinishReasons> num_finished{};
  int64_t num_generated = 0, num_prompt = 0, num_shared = 0, num_preemptions = 0;
  uint64_t num_admitted = 0;
  KvTraffic traffic;
  for (const std::shared_ptr<Client>& client : clients_) {
    ASSERT_TRUE(client->ended);
    if (client->is_refused) {
      ASSERT_TRUE(client->events.empty());
      continue;
    }
    ++num_admitted;
    const TokenEvent& last = client->events.back();
    ++num_finished[static_cast<size_t>(last.finish)];
    const auto num_tokens = std::count_if(client->events.begin(), client->events.end(),
                                          [](const TokenEvent& event) { return event.has_token; });
    num_generated += num_tokens;
    if (num_tokens > 0 && client->request.counts_prompt)
      num_prompt += static_cast<int64_t>(client->request.prompt.size());
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
  ASSERT_EQ(stats.e2e_latency.total(), num_admitted);
  ASSERT_EQ(stats.request_generated_tokens.sum, static_cast<double>(num_generated));
  // Of a lost device nobody knows what it computed.
  ASSERT_TRUE(lost_ || stats.step_tokens.sum == static_cast<double>(num_step_tokens_));
  ASSERT_EQ(stats.traffic.read_bytes, traffic.read_bytes);
  ASSERT_EQ(stats.traffic.dense_bytes, traffic.dense_bytes);
}

// Nothing is held, and the prefix index knows the kept pages alone.
void Simulation::CheckIdle() {
  const Scheduler& scheduler = core_.scheduler();
  const EngineStats& stats = core_.stats();
  ASSERT_TRUE(scheduler.idle());
  ASSERT_EQ(stats.num_running, 0);
  ASSERT_EQ(stats.num_waiting, 0);
  ASSERT_EQ(stats.num_started_prompt_tokens, 0);
  ASSERT_EQ(stats.num_free_pages, limits_.num_pages);
  ASSERT_EQ(scheduler.recent_pages().num_free(), limits_.num_recent_pages);
  ASSERT_EQ(scheduler.prefix_index().num_pages(), scheduler.pages().num_kept());
  for (const int64_t num_rejected : admission_.num_rejected()) {
    counts_.num_rejected += num_rejected;
  }
  ASSERT_EQ(counts_.num_rejected, num_refused_);
}

}  // namespace nsa
