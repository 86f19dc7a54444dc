#include "server/constraint_queue.h"

#include <algorithm>
#include <chrono>

#include "absl/time/clock.h"
#include "base/thread_name.h"

namespace nsa {

ConstraintQueue::ConstraintQueue(std::shared_ptr<const TokenTable> tokens,
                                 const ConstraintQueueOptions& options)
    : compiler_(std::move(tokens), options.limits, options.cache_bytes), places_(options.places) {
  threads_.emplace_back([this] { Watch(); });
  for (int i = 0; i < options.num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

ConstraintQueue::~ConstraintQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

ConstraintQueue::Ticket ConstraintQueue::Compile(Order order, Done done) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::make_shared<Job>(
      Job{.ticket = ++last_ticket_, .order = std::move(order), .done = std::move(done)}));
  changed_.notify_all();
  return last_ticket_;
}

void ConstraintQueue::Cancel(Ticket ticket) {
  std::shared_ptr<Job> job;  // these two are destroyed without the lock: they may own anything
  Done dropped;
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(jobs_.begin(), jobs_.end(),
                               [ticket](const auto& some) { return some->ticket == ticket; });
  if (it == jobs_.end()) return;
  job = *it;
  dropped.swap(job->done);
  Leave(job);
}

void ConstraintQueue::EndAt(absl::Time time) {
  const std::lock_guard lock(mutex_);
  end_ = std::min(end_, time);
  changed_.notify_all();
}

int64_t ConstraintQueue::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return std::count_if(jobs_.begin(), jobs_.end(),
                       [](const auto& job) { return !job->is_running; });
}

void ConstraintQueue::Run() {
  NameThisThread("nsa-constraints");
  while (const std::shared_ptr<Job> job = WaitForJob()) {
    Compiled compiled = compiler_.Compile(*job->order.spec);
    if (const Done done = Finish(job); done) done(std::move(compiled));
  }
}

// Null when the queue is being destroyed.
std::shared_ptr<ConstraintQueue::Job> ConstraintQueue::WaitForJob() {
  std::unique_lock lock(mutex_);
  std::shared_ptr<Job> job;
  changed_.wait(lock, [&] { return stopping_ || (job = NextJob()) != nullptr; });
  if (stopping_) return nullptr;
  job->is_running = true;
  last_caller_ = *job->order.place;
  return job;
}

// The first of the caller whose turn it is. One that is equal to what a thread works on waits, for
// it will be known then.
std::shared_ptr<ConstraintQueue::Job> ConstraintQueue::NextJob() {
  const auto is_ready = [this](const Job& job) {
    return !job.is_running && std::none_of(jobs_.begin(), jobs_.end(), [&](const auto& other) {
      return other->is_running && *other->order.spec == *job.order.spec;
    });
  };
  // Callers behind the last one first, then from the beginning.
  const auto turn = [this](const Job& job) {
    const std::string& caller = *job.order.place;
    return std::pair<bool, const std::string&>(caller <= last_caller_, caller);
  };
  std::shared_ptr<Job> next;
  for (const auto& job : jobs_) {
    if (is_ready(*job) && (next == nullptr || turn(*job) < turn(*next))) next = job;
  }
  return next;
}

// What is to be called now that the job is done; empty if nobody waits any more.
ConstraintQueue::Done ConstraintQueue::Finish(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  job->is_running = false;
  Leave(job);
  changed_.notify_all();
  return stopping_ ? Done() : std::exchange(job->done, nullptr);
}

void ConstraintQueue::Leave(const std::shared_ptr<Job>& job) {
  if (job->is_running) return;
  std::erase(jobs_, job);
  job->order.place.reset();
}

absl::Time ConstraintQueue::EndOf(const Job& job) const {
  return job.done ? std::min(job.order.deadline, end_) : absl::InfiniteFuture();
}

// Ends what has waited for too long.
void ConstraintQueue::Watch() {
  constexpr absl::Duration kLongest = absl::Hours(1);  // far-away times overflow the clock's range
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      absl::Time end = absl::Now() + kLongest;
      for (const auto& job : jobs_) end = std::min(end, EndOf(*job));
      if (stopping_) return;
      const absl::Duration wait = std::max(end - absl::Now(), absl::ZeroDuration());
      if (wait > absl::ZeroDuration()) changed_.wait_for(lock, absl::ToChronoNanoseconds(wait));
    }
    Jobs dropped;
    for (auto& [done, status] : TakeEnded(absl::Now(), &dropped)) done(std::move(status));
  }
}

std::vector<std::pair<ConstraintQueue::Done, absl::Status>> ConstraintQueue::TakeEnded(
    absl::Time now, Jobs* dropped) {
  std::vector<std::pair<Done, absl::Status>> ended;
  const std::lock_guard lock(mutex_);
  if (stopping_) return ended;
  for (const auto& job : Jobs(jobs_)) {
    if (now < EndOf(*job)) continue;
    const bool is_late = now >= job->order.deadline;
    ended.emplace_back(std::exchange(job->done, nullptr),
                       is_late ? absl::DeadlineExceededError("the request's time is over")
                               : absl::UnavailableError("the server is shutting down"));
    dropped->push_back(job);
    Leave(job);
  }
  return ended;
}

}  // namespace nsa
