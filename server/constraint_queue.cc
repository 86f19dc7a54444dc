#include "server/constraint_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {

ConstraintQueue::ConstraintQueue(std::shared_ptr<const TokenTable> tokens,
                                 const ConstraintQueueOptions& options)
    : compiler_(std::move(tokens), options.limits, options.cache_bytes),
      max_waiting_(options.max_waiting) {
  for (int i = 0; i < options.num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

ConstraintQueue::~ConstraintQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

ConstraintQueue::Ticket ConstraintQueue::Compile(std::shared_ptr<const ConstraintSpec> spec,
                                                 Done done) {
  if (auto kept = compiler_.Find(*spec); kept != nullptr) {
    done(std::move(kept));
    return kNoTicket;
  }
  {
    const std::lock_guard lock(mutex_);
    if (std::ssize(waiting_) < max_waiting_) {
      auto job = std::make_shared<Job>(
          Job{.ticket = ++last_ticket_, .spec = std::move(spec), .done = std::move(done)});
      waiting_.push_back(std::move(job));
      work_arrived_.notify_one();
      return last_ticket_;
    }
  }
  done(absl::ResourceExhaustedError(
      absl::StrCat(max_waiting_, " constraints are waiting to be compiled, which is the limit")));
  return kNoTicket;
}

void ConstraintQueue::Cancel(Ticket ticket) {
  Done dropped;  // destroyed without the lock: it may own anything
  const std::lock_guard lock(mutex_);
  const auto has_ticket = [ticket](const auto& job) { return job->ticket == ticket; };
  if (const auto it = std::find_if(waiting_.begin(), waiting_.end(), has_ticket);
      it != waiting_.end()) {
    dropped.swap((*it)->done);
    waiting_.erase(it);
  } else if (const auto run = std::find_if(running_.begin(), running_.end(), has_ticket);
             run != running_.end()) {
    dropped.swap((*run)->done);
  }
}

int64_t ConstraintQueue::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return std::ssize(waiting_);
}

void ConstraintQueue::Run() {
  while (const std::shared_ptr<Job> job = Next()) {
    Compiled compiled = compiler_.Compile(*job->spec);
    if (const Done done = Take(job); done) done(std::move(compiled));
  }
}

// Waits for a job; null when the queue is being destroyed.
std::shared_ptr<ConstraintQueue::Job> ConstraintQueue::Next() {
  std::unique_lock lock(mutex_);
  work_arrived_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
  if (stopping_) return nullptr;
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  return running_.back();
}

// What is to be called now that the job is done; empty if nobody waits any more.
ConstraintQueue::Done ConstraintQueue::Take(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  std::erase(running_, job);
  return stopping_ ? Done() : std::exchange(job->done, nullptr);
}

}  // namespace nsa
