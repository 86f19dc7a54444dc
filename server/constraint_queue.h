#pragma once
// ConstraintQueue: compiles constraints on threads of its own, for calls that wait for them.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/constraint/constraint_compiler.h"

namespace nsa {

struct ConstraintQueueOptions {
  ConstraintLimits limits;
  int64_t cache_bytes = int64_t{256} << 20;  // as ConstraintCompiler
  int64_t max_waiting = 64;                  // constraints in the queue; more are refused
  int num_threads = 2;
};

// Thread-safe.
class ConstraintQueue {
 public:
  using Compiled = absl::StatusOr<std::shared_ptr<const CompiledConstraint>>;
  using Done = std::function<void(Compiled)>;
  using Ticket = uint64_t;
  static constexpr Ticket kNoTicket = 0;

  ConstraintQueue(std::shared_ptr<const TokenTable> tokens, const ConstraintQueueOptions& options);
  // What has not been answered never will be.
  ~ConstraintQueue();
  ConstraintQueue(const ConstraintQueue&) = delete;
  ConstraintQueue& operator=(const ConstraintQueue&) = delete;

  // `done` is called once: before this returns (kNoTicket) with a constraint that was kept or with
  // RESOURCE_EXHAUSTED, the queue being full; else on a thread of the queue, perhaps before this
  // returns, with what ConstraintCompiler says, unless the ticket has been cancelled.
  Ticket Compile(std::shared_ptr<const ConstraintSpec> spec, Done done);

  // The `done` of this ticket is dropped, unless its turn has come already. Any ticket will do.
  void Cancel(Ticket ticket);

  int64_t num_waiting() const;  // not yet begun
  int64_t num_cached() const { return compiler_.num_cached(); }

 private:
  struct Job {
    Ticket ticket = kNoTicket;
    std::shared_ptr<const ConstraintSpec> spec;
    Done done;  // empty once cancelled
  };

  void Run();
  std::shared_ptr<Job> Next();
  Done Take(const std::shared_ptr<Job>& job);

  ConstraintCompiler compiler_;
  const int64_t max_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;
  Ticket last_ticket_ ABSL_GUARDED_BY(mutex_) = kNoTicket;
  std::deque<std::shared_ptr<Job>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Job>> running_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace nsa
