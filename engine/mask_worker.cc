#include "engine/mask_worker.h"

#include <utility>

#include "base/thread_name.h"

namespace nsa {

MaskWorker::~MaskWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void MaskWorker::Compute(std::shared_ptr<ConstrainedOutput> output) {
  if (output->TakeReadyMask()) return;
  output->ExpectMask();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(output));
  }
  work_arrived_.notify_one();
}

void MaskWorker::Run() {
  NameThisThread("nsa-masks");
  while (true) {
    std::shared_ptr<ConstrainedOutput> output;
    {
      std::unique_lock lock(mutex_);
      work_arrived_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      output = std::move(waiting_.front());
      waiting_.pop_front();
    }
    output->ComputeMask();
  }
}

}  // namespace nsa
