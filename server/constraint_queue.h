#pragma once
// ConstraintQueue: compiles constraints on threads of its own, for calls that wait for them.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/constraint/constraint_compiler.h"
#include "server/constraint_places.h"

namespace nsa {

struct ConstraintQueueOptions {
  ConstraintLimits limits;
  int64_t cache_bytes = int64_t{256} << 20;  // as ConstraintCompiler
  ConstraintPlaces::Limits places;           // more constraints are refused
  int num_threads = 2;
};

// Callers take turns, so that nobody waits for all constraints of another. Thread-safe.
class ConstraintQueue {
 public:
  using Compiled = ConstraintCompiler::Compiled;
  using Done = std::function<void(Compiled)>;
  using Place = ConstraintPlaces::Place;
  using Ticket = uint64_t;
  static constexpr Ticket kNoTicket = 0;

  ConstraintQueue(std::shared_ptr<const TokenTable> tokens, const ConstraintQueueOptions& options);
  // What has not been answered never will be.
  ~ConstraintQueue();
  ConstraintQueue(const ConstraintQueue&) = delete;
  ConstraintQueue& operator=(const ConstraintQueue&) = delete;

  // What is known of an equal constraint already: no place is needed.
  std::optional<Compiled> Find(const ConstraintSpec& spec) { return compiler_.Find(spec); }
  // As ConstraintPlaces.
  absl::StatusOr<Place> Reserve(const std::string& caller, int64_t num_requests) {
    return places_.Reserve(caller, num_requests);
  }

  struct Order {
    Place place;
    std::shared_ptr<const ConstraintSpec> spec;
    absl::Time deadline = absl::InfiniteFuture();
  };
  // `done` is called once, on a thread of the queue, perhaps before this returns: with what
  // ConstraintCompiler says; DEADLINE_EXCEEDED at the order's deadline; UNAVAILABLE at the end of
  // EndAt; or never, if the ticket is cancelled before. The place is kept until then, or for as
  // long as a thread works on it.
  Ticket Compile(Order order, Done done);

  // The `done` of this ticket is dropped, unless its turn has come already. Any ticket will do.
  void Cancel(Ticket ticket);

  // What waits or comes later than `time` ends then: the server is shutting down.
  void EndAt(absl::Time time);

  int64_t num_waiting() const;  // not yet begun
  int64_t num_cached() const { return compiler_.num_cached(); }
  // Requests without a place, and those of which it is counted.
  int64_t num_rejected() const { return places_.num_rejected(); }
  void CountRejected(int64_t num_requests) { places_.CountRejected(num_requests); }

 private:
  struct Job {
    Ticket ticket = kNoTicket;
    Order order;
    Done done;  // empty once called or cancelled
    bool is_running = false;
  };
  using Jobs = std::vector<std::shared_ptr<Job>>;

  void Run();
  void Watch();
  std::shared_ptr<Job> NextJob() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Job> WaitForJob();
  Done Finish(const std::shared_ptr<Job>& job);
  // Drops a job that nobody waits for any more, once no thread works on it.
  void Leave(const std::shared_ptr<Job>& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time EndOf(const Job& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::pair<Done, absl::Status>> TakeEnded(absl::Time now, Jobs* dropped);

  ConstraintCompiler compiler_;
  ConstraintPlaces places_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Ticket last_ticket_ ABSL_GUARDED_BY(mutex_) = kNoTicket;
  std::string last_caller_ ABSL_GUARDED_BY(mutex_);                  // whose turn it was
  Jobs jobs_ ABSL_GUARDED_BY(mutex_);                                // in order of arrival
  absl::Time end_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // of everything
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace nsa
