#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace nsa {
namespace {

// Prompt tokens that a chunk of num_tokens would score.
int64_t NumScored(const Sequence& sequence, int64_t num_tokens) {
  if (!sequence.has_unscored_tokens()) return 0;
  const int64_t first = std::max(sequence.num_cached_tokens, sequence.num_scored_tokens) + 1;
  const int64_t end =
      std::min(sequence.num_cached_tokens + num_tokens + 1, sequence.num_prompt_tokens);
  return std::max<int64_t>(0, end - first);
}

void AddChunk(Sequence& sequence, int64_t num_tokens, StepPlan& plan) {
  const int64_t num_scored = NumScored(sequence, num_tokens);
  plan.chunks.push_back(
      {.sequence = &sequence,
       .num_tokens = num_tokens,
       .end_tokens = sequence.num_cached_tokens + num_tokens,
       .samples = num_tokens == sequence.num_uncached_tokens(),
       .first_scored = std::max(sequence.num_cached_tokens, sequence.num_scored_tokens) + 1,
       .num_scored = num_scored,
       .is_decode = sequence.state == SequenceState::kDecode,
       .preemptions = sequence.times.num_preemptions});
  plan.num_tokens += num_tokens;
  plan.num_scored += num_scored;
}

void DropChunk(const Sequence& sequence, StepPlan& plan) {
  std::erase_if(plan.chunks, [&](const ScheduledChunk& chunk) {
    if (chunk.sequence != &sequence) return false;
    plan.num_tokens -= chunk.num_tokens;
    plan.num_scored -= chunk.num_scored;
    return true;
  });
}

bool IsBefore(const Sequence* a, const Sequence* b) {
  return std::pair(a->rank(), a->arrival) < std::pair(b->rank(), b->arrival);
}

}  // namespace

Scheduler::Scheduler(const ExecutorLimits& limits)
    : limits_(limits),
      pages_(limits.num_pages),
      recent_pages_(limits.num_recent_pages),
      prefix_index_(limits.page_tokens, limits.lookback_tokens, &pages_, &recent_pages_) {
  NSA_CHECK_GT(limits.page_tokens, 0);
  NSA_CHECK_GT(limits.num_pages, 0);
  NSA_CHECK_GT(limits.max_num_seqs, 0);
  NSA_CHECK_GE(limits.num_recent_pages, limits.MinRecentPages());
  NSA_CHECK_GT(limits.max_chunk_tokens, 0);
  NSA_CHECK_GT(limits.max_batched_tokens, 0);
}

void Scheduler::Enqueue(Sequence* sequence) {
  NSA_CHECK(sequence->state == SequenceState::kWaiting);
  NSA_CHECK_LE(PagesFor(sequence->num_prompt_tokens + sequence->request.max_tokens),
               limits_.num_pages)
      << "can never run";
  sequence->arrival = num_arrivals_++;
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), sequence, IsBefore), sequence);
}

void Scheduler::Remove(Sequence* sequence, FinishReason reason) {
  NSA_CHECK(sequence->state != SequenceState::kFinished);
  const auto num_removed = sequence->state == SequenceState::kWaiting
                               ? std::erase(waiting_, sequence)
                               : std::erase(running_, sequence);
  NSA_CHECK_EQ(num_removed, 1U) << "not a sequence of this scheduler";
  ReleaseCache(*sequence);
  sequence->state = SequenceState::kFinished;
  sequence->finish = reason;
}

void Scheduler::ForgetPages(const Sequence& sequence) {
  for (PageId page : sequence.pages) prefix_index_.Forget(page);
}

StepPlan Scheduler::Plan(absl::Time now) {
  StepPlan plan;
  plan.expired = TakeExpired(now);
  ScheduleRunning(SequenceState::kDecode, plan);
  ScheduleRunning(SequenceState::kPrefill, plan);
  Admit(now, plan);
  return plan;
}

void Scheduler::Launched(const StepPlan& plan) {
  ++num_launched_;
  int32_t num_rows = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    Sequence& sequence = *chunk.sequence;
    const int64_t num_cached_before = sequence.num_cached_tokens;
    sequence.num_cached_tokens += chunk.num_tokens;
    IndexPages(sequence, num_cached_before);
    ReleasePassed(sequence);
    num_rows += static_cast<int32_t>(chunk.num_scored);
    if (!chunk.samples) continue;
    sequence.state = SequenceState::kDecode;
    sequence.pending_row = num_rows++;
    ++sequence.num_pending_tokens;
  }
}

void Scheduler::Commit(const ScheduledChunk& chunk, std::optional<int32_t> token) {
  NSA_CHECK_EQ(chunk.samples, token.has_value());
  Sequence& sequence = *chunk.sequence;
  if (chunk.num_scored > 0) {
    sequence.num_scored_tokens = chunk.first_scored + chunk.num_scored - 1;
  }
  if (!chunk.samples) return;
  --sequence.num_pending_tokens;
  const FinishReason reason = sequence.Append(*token);
  IndexPages(sequence, sequence.num_cached_tokens);
  if (reason != FinishReason::kNone) Remove(&sequence, reason);
}

void Scheduler::Ended(bool ok) {
  NSA_CHECK_LT(num_ended_, num_launched_);
  ++num_ended_;
  if (!ok) prefix_index_.ForgetSince(num_ended_);
}

std::vector<Sequence*> Scheduler::TakeExpired(absl::Time now) {
  std::vector<Sequence*> expired;
  const auto collect = [&](Sequence* sequence) {
    if (now >= sequence->request.deadline) expired.push_back(sequence);
  };
  std::for_each(running_.begin(), running_.end(), collect);
  std::for_each(waiting_.begin(), waiting_.end(), collect);
  for (Sequence* sequence : expired) Remove(sequence, FinishReason::kTimeout);
  return expired;
}

// Plans a chunk of every running sequence in `state`, in order of rank, while the budget lasts.
void Scheduler::ScheduleRunning(SequenceState state, StepPlan& plan) {
  // By index: preemption takes sequences off the end.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (plan.num_tokens >= limits_.max_batched_tokens) return;
    if (sequence.state != state || sequence.awaits_end()) continue;
    const int64_t num_wanted = NumWanted(sequence, plan);
    if (num_wanted <= 0) continue;  // no scored rows are left
    const int64_t num_tokens = MakeRoom(sequence, num_wanted, plan);
    if (num_tokens > 0) AddChunk(sequence, num_tokens, plan);
  }
}

// Admits waiting sequences in order: each with the pages of its first chunk, or not at all. The
// head waits until the pages of all its known tokens are free and no running prefill needs them:
// admitted any earlier, it would mostly be computed for the next preemption. For the same reason a
// sequence that was preempted in this step is not back in it. A sequence is admitted only into
// budget that the running ones left, so they are never more than the budget has tokens, and decodes
// cannot keep the first one from its prefill. One that waits for the prompt of a sibling, or for
// rows of a later step, lets others pass, but keeps a place and the pages that it will need.
void Scheduler::Admit(absl::Time now, StepPlan& plan) {
  int64_t num_passed = 0, num_kept_pages = 0;
  while (num_passed < std::ssize(waiting_) &&
         std::ssize(running_) + num_passed < limits_.max_num_seqs) {
    Sequence& sequence = *waiting_[num_passed];
    if (plan.num_tokens >= limits_.max_batched_tokens || sequence.awaits_end()) return;
    const bool awaits_prompt = AwaitsPrompt(sequence);
    if (awaits_prompt || NumWanted(sequence, plan) <= 0) {
      num_kept_pages +=
          PagesFor(sequence.num_coming_tokens()) -
          (awaits_prompt ? (sequence.num_prompt_tokens - 1) / limits_.page_tokens : 0);
      ++num_passed;
      continue;
    }
    const PrefixMatch prefix = FindPrefix(sequence);
    const int64_t num_left =
        pages_.num_free() - NumPagesTaken(prefix) - NumReservedPages() - num_kept_pages;
    const auto num_shared = static_cast<int64_t>(prefix.pages.size());
    if (PagesFor(sequence.num_coming_tokens()) - num_shared > num_left) return;
    waiting_.erase(waiting_.begin() + num_passed);
    running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, IsBefore),
                    &sequence);
    sequence.state = SequenceState::kPrefill;
    SharePrefix(prefix, sequence, plan);
    const int64_t num_tokens = NumWanted(sequence, plan);
    sequence.times.scheduled = std::min(sequence.times.scheduled, now);
    AcquirePages(sequence, num_tokens);
    CopyPartialPage(prefix, sequence, plan);
    AddChunk(sequence, num_tokens, plan);
  }
}

// Acquires pages for up to `num_wanted` more tokens and returns for how many. Preempts those
// of higher rank when there is no room for even one; 0 if there is none to preempt.
int64_t Scheduler::MakeRoom(Sequence& sequence, int64_t num_wanted, StepPlan& plan) {
  while (Room(sequence) == 0) {
    if (running_.back() == &sequence) return 0;
    Preempt(plan);
  }
  const int64_t num_tokens = std::min(num_wanted, Room(sequence));
  AcquirePages(sequence, num_tokens);
  return num_tokens;
}

void Scheduler::AcquirePages(Sequence& sequence, int64_t num_new_tokens) {
  const int64_t num_needed = PagesFor(sequence.num_cached_tokens + num_new_tokens);
  while (static_cast<int64_t>(sequence.pages.size()) < num_needed) {
    const std::optional<PageId> page = pages_.Acquire();
    NSA_CHECK(page.has_value());
    sequence.pages.push_back(*page);
  }
  if (limits_.lookback_tokens == 0) return;
  std::deque<PageId>& recent = sequence.recent_pages;
  while (sequence.first_recent_page + static_cast<int64_t>(recent.size()) < num_needed) {
    const std::optional<PageId> page = recent_pages_.Acquire();
    NSA_CHECK(page.has_value()) << "fewer recent pages than MinRecentPages";
    recent.push_back(*page);
  }
}

// Gives back the recent pages that no token from the next one on looks back at.
void Scheduler::ReleasePassed(Sequence& sequence) {
  const int64_t first_token = sequence.num_cached_tokens - limits_.lookback_tokens;
  const int64_t first_page = std::max<int64_t>(0, first_token) / limits_.page_tokens;
  std::deque<PageId>& pages = sequence.recent_pages;
  for (; sequence.first_recent_page < first_page && !pages.empty(); ++sequence.first_recent_page) {
    recent_pages_.Release(pages.front());
    pages.pop_front();
  }
}

// True while the prompt that the sequence could share is being computed: until the step that
// computes its last token has ended.
bool Scheduler::AwaitsPrompt(const Sequence& sequence) const {
  const std::optional<RequestId>& first = sequence.request.same_prompt_as;
  if (!first.has_value() || !limits_.shares_prefixes || sequence.request.scores_prompt ||
      sequence.num_prompt_tokens == 1) {
    return false;
  }
  return std::any_of(running_.begin(), running_.end(), [&](const Sequence* running) {
    return running->request.id == *first && running->num_generated_tokens() == 0;
  });
}

// The longest prefix of a waiting sequence that others have left in the cache.
PrefixMatch Scheduler::FindPrefix(const Sequence& sequence) const {
  // A shared token is not computed, so it could not be scored.
  if (!limits_.shares_prefixes || sequence.has_unscored_tokens()) return {};
  return prefix_index_.Find(sequence.tokens, sequence.request.cache_salt, num_ended_);
}

// Pages of the prefix that nobody holds: sharing them makes fewer free.
int64_t Scheduler::NumPagesTaken(const PrefixMatch& prefix) const {
  return std::count_if(prefix.pages.begin(), prefix.pages.end(),
                       [this](PageId page) { return pages_.num_references(page) == 0; });
}

// Makes the full pages of the prefix the first ones of a sequence that has none.
void Scheduler::SharePrefix(const PrefixMatch& prefix, Sequence& sequence, StepPlan& plan) {
  for (PageId page : prefix.pages) pages_.Share(page);
  for (PageId page : prefix.recent_pages) recent_pages_.Share(page);
  sequence.pages = prefix.pages;
  sequence.recent_pages.assign(prefix.recent_pages.begin(), prefix.recent_pages.end());
  sequence.first_recent_page = prefix.first_recent_page;
  sequence.num_indexed_pages = static_cast<int64_t>(prefix.pages.size());
  sequence.last_indexed_entry = prefix.last_entry;
  sequence.num_cached_tokens = prefix.num_tokens;
  if (sequence.times.num_preemptions > 0) return;
  sequence.num_prompt_tokens_shared = sequence.num_cached_tokens;
  plan.num_queried_tokens += sequence.num_prompt_tokens;
  plan.num_shared_tokens += sequence.num_cached_tokens;
}

// Where the prefix ends inside a page, the sequence goes on in a copy. Nobody needs to hold the
// page meanwhile: copies come before all that the step stores, and whoever takes the page in this
// plan, perhaps the sequence itself, is in the same step.
void Scheduler::CopyPartialPage(const PrefixMatch& prefix, const Sequence& sequence,
                                StepPlan& plan) const {
  const auto add = [](PageId from, PageId to, std::vector<PageCopy>& copies) {
    if (from != to) copies.push_back({.from = from, .to = to});
  };
  if (prefix.partial_page < 0) return;
  add(prefix.partial_page, sequence.pages[prefix.pages.size()], plan.page_copies);
  if (limits_.lookback_tokens == 0) return;
  add(prefix.partial_recent_page, sequence.recent_pages[prefix.recent_pages.size()],
      plan.recent_copies);
}

// Adds to the prefix index what is cached by now, or in flight: the prompt's end, once, and pages
// whose tokens are all known.
void Scheduler::IndexPages(Sequence& sequence, int64_t num_cached_before) {
  if (!limits_.shares_prefixes) return;
  // Before its last token, which whoever has the same prompt computes to sample the next one.
  const int64_t prompt_end = sequence.num_prompt_tokens - 1;
  if (num_cached_before < prompt_end && sequence.num_cached_tokens >= prompt_end) {
    IndexFullPages(sequence, prompt_end);
    const int64_t num_left = prompt_end - sequence.num_indexed_pages * limits_.page_tokens;
    if (num_left > 0) IndexNextPage(sequence, num_left);
  }
  IndexFullPages(sequence, std::min(sequence.num_cached_tokens, sequence.num_tokens()));
}

// Those among the first num_tokens tokens.
void Scheduler::IndexFullPages(Sequence& sequence, int64_t num_tokens) {
  for (int64_t& page = sequence.num_indexed_pages; (page + 1) * limits_.page_tokens <= num_tokens;
       ++page) {
    sequence.last_indexed_entry = IndexNextPage(sequence, limits_.page_tokens);
  }
}

// The page behind those that are in the index, with the first num_tokens tokens in it.
uint64_t Scheduler::IndexNextPage(const Sequence& sequence, int64_t num_tokens) {
  const int64_t page = sequence.num_indexed_pages;
  const int64_t recent = page - sequence.first_recent_page;
  const bool has_recent = recent >= 0 && recent < std::ssize(sequence.recent_pages);
  return prefix_index_.Insert(
      sequence.last_indexed_entry,
      std::span(sequence.tokens).subspan(page * limits_.page_tokens, num_tokens),
      sequence.request.cache_salt, sequence.pages[page],
      has_recent ? sequence.recent_pages[recent] : PageId{-1}, num_launched_);
}

// Sends the last running sequence back to its place in the queue.
void Scheduler::Preempt(StepPlan& plan) {
  Sequence& sequence = *running_.back();
  running_.pop_back();
  DropChunk(sequence, plan);
  ReleaseCache(sequence);
  sequence.state = SequenceState::kWaiting;
  ++sequence.times.num_preemptions;
  ++plan.num_preemptions;
  waiting_.insert(std::lower_bound(waiting_.begin(), waiting_.end(), &sequence, IsBefore),
                  &sequence);
}

void Scheduler::ReleaseCache(Sequence& sequence) {
  // From the end: of the pages that are kept, the end of a sequence is of use to the fewest others,
  // and given to somebody else first.
  std::for_each(sequence.pages.rbegin(), sequence.pages.rend(),
                [this](PageId page) { pages_.Release(page); });
  for (PageId page : sequence.recent_pages) recent_pages_.Release(page);
  sequence.pages.clear();
  sequence.recent_pages.clear();
  sequence.first_recent_page = 0;
  sequence.num_indexed_pages = 0;
  sequence.last_indexed_entry = 0;
  sequence.num_cached_tokens = 0;
}

int64_t Scheduler::PagesFor(int64_t num_tokens) const {
  return (num_tokens + limits_.page_tokens - 1) / limits_.page_tokens;
}

// Tokens of the sequence that this step would take, pages permitting.
int64_t Scheduler::NumWanted(const Sequence& sequence, const StepPlan& plan) const {
  const int64_t num_wanted = std::min({sequence.num_uncached_tokens(), limits_.max_chunk_tokens,
                                       limits_.max_batched_tokens - plan.num_tokens});
  if (!sequence.has_unscored_tokens()) return num_wanted;
  // A token scores at most one.
  return std::min(num_wanted, limits_.max_scored_rows - plan.num_scored);
}

// Pages that running sequences still need for tokens that exist.
int64_t Scheduler::NumReservedPages() const {
  int64_t num_pages = 0;
  for (const Sequence* sequence : running_) {
    num_pages +=
        PagesFor(sequence->num_coming_tokens()) - static_cast<int64_t>(sequence->pages.size());
  }
  return num_pages;
}

// Uncached tokens that the sequence's pages and the free ones can take.
int64_t Scheduler::Room(const Sequence& sequence) const {
  const int64_t num_pages = static_cast<int64_t>(sequence.pages.size()) + pages_.num_free();
  return num_pages * limits_.page_tokens - sequence.num_cached_tokens;
}

}  // namespace nsa
