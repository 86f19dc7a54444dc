#pragma once
// Scheduler: which sequences run in a step, how many tokens of each, in which pages. Pure policy:
// no clock (time is passed in), no threads, no tensors. The engine thread owns it.
//
// Sequences are served in order of rank: their arrival, moved by their priority. A step takes one
// token of every sequence in decode, then chunks of the prompts being prefilled, then admits
// waiting ones, until the token budget is used. Pages are taken as tokens need them. When none is
// left, the running sequence of the highest rank gives back everything, waits in its place and is
// computed again later; one that has the highest rank itself keeps its pages and pauses. So the
// running sequence of the lowest rank advances in every step, and, as ranks grow with time, every
// one comes to be it.

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "engine/cache/page_pool.h"
#include "engine/cache/prefix_index.h"
#include "engine/executor.h"
#include "engine/sequence.h"

namespace nsa {

// The tokens [num_cached_tokens, num_cached_tokens + num_tokens) of a sequence, one step's work;
// its pages cover them.
struct ScheduledChunk {
  Sequence* sequence = nullptr;  // null once the sequence has ended while the chunk is in flight
  int64_t num_tokens = 0;
  int64_t end_tokens = 0;    // tokens of the sequence up to the chunk's end
  bool samples = false;      // it reaches the last token, so the next one is sampled
  int64_t first_scored = 0;  // prompt tokens [first_scored, first_scored + num_scored) are scored,
  int64_t num_scored = 0;    // each by the token before it
  bool is_decode = false;    // of a sequence that was in decode
  int64_t preemptions = 0;   // of the sequence when planned: another number later, and what the
                             // chunk cached is gone
};

struct StepPlan {
  std::vector<ScheduledChunk> chunks;
  std::vector<PageCopy> page_copies, recent_copies;  // as Batch
  std::vector<Sequence*> expired;  // past their deadline, removed, kFinished with kTimeout
  int64_t num_tokens = 0;          // of all chunks
  int64_t num_scored = 0;          // of all chunks
  int64_t num_preemptions = 0;
  int64_t num_queried_tokens = 0;  // of sequences admitted for the first time
  int64_t num_shared_tokens = 0;   // of them, those found in the prefix index
};

class Scheduler {
 public:
  explicit Scheduler(const ExecutorLimits& limits);

  // Adds a waiting sequence to the queue. It must outlive its stay here and fit the pool
  // with all tokens it may reach.
  void Enqueue(Sequence* sequence);
  // Takes a sequence out, whatever its state; its pages are free at once. It becomes kFinished with
  // `reason`.
  void Remove(Sequence* sequence, FinishReason reason);
  // What the sequence has cached is not to be trusted: nobody else will begin in its pages.
  void ForgetPages(const Sequence& sequence);

  // A step goes through Plan, Launched, a Commit per chunk and Ended; the next one may be planned
  // and launched before the Commit. Pages are given on as soon as a sequence leaves them: steps
  // write in the order of their launches.
  //
  // Chooses the next step's work. With no step in flight it is not empty while any sequence is left
  // after the expired ones. A sequence whose last possible token is in flight is left out.
  StepPlan Plan(absl::Time now);
  // Records that the step was launched, with rows for each chunk in their order: for the tokens
  // that it scores, then for the one that it samples.
  void Launched(const StepPlan& plan);
  // Records that a launched chunk was computed. `token` is the sampled one, for a chunk that
  // samples; if it ends the sequence, the sequence is removed with kStop or kLength.
  void Commit(const ScheduledChunk& chunk, std::optional<int32_t> token);

  // Records that the oldest launched step is over. What a failed one cached is not shared.
  void Ended(bool ok);

  bool idle() const { return running_.empty() && waiting_.empty(); }
  // Both in order of rank.
  const std::vector<Sequence*>& running() const { return running_; }
  const std::deque<Sequence*>& waiting() const { return waiting_; }
  const PagePool& pages() const { return pages_; }
  const PagePool& recent_pages() const { return recent_pages_; }
  const PrefixIndex& prefix_index() const { return prefix_index_; }

 private:
  std::vector<Sequence*> TakeExpired(absl::Time now);
  void ScheduleRunning(SequenceState state, StepPlan& plan);
  void Admit(absl::Time now, StepPlan& plan);
  int64_t MakeRoom(Sequence& sequence, int64_t num_wanted, StepPlan& plan);
  void AcquirePages(Sequence& sequence, int64_t num_new_tokens);
  void ReleasePassed(Sequence& sequence);
  bool AwaitsPrompt(const Sequence& sequence) const;
  PrefixMatch FindPrefix(const Sequence& sequence) const;
  void SharePrefix(const PrefixMatch& prefix, Sequence& sequence, StepPlan& plan);
  int64_t NumPagesTaken(const PrefixMatch& prefix) const;
  void CopyPartialPage(const PrefixMatch& prefix, const Sequence& sequence, StepPlan& plan) const;
  void IndexPages(Sequence& sequence, int64_t num_cached_before);
  void IndexFullPages(Sequence& sequence, int64_t num_tokens);
  uint64_t IndexNextPage(const Sequence& sequence, int64_t num_tokens);
  void Preempt(StepPlan& plan);
  void ReleaseCache(Sequence& sequence);
  int64_t PagesFor(int64_t num_tokens) const;
  int64_t NumWanted(const Sequence& sequence, const StepPlan& plan) const;
  int64_t NumReservedPages() const;
  int64_t Room(const Sequence& sequence) const;

  const ExecutorLimits limits_;
  PagePool pages_, recent_pages_;
  PrefixIndex prefix_index_;
  uint64_t num_launched_ = 0, num_ended_ = 0;  // steps
  std::vector<Sequence*> running_;
  std::deque<Sequence*> waiting_;
  int64_t num_arrivals_ = 0;
};

}  // namespace nsa
