#include "engine/mask_worker.h"

#include <utility>

#include "base/thread_name.h"

namespace nsa {
namespace {

// Those whose masks are not ready; they are expected now.
MaskWorker::Outputs ExpectMasks(std::span<const std::shared_ptr<ConstrainedOutput>> outputs) {
  MaskWorker::Outputs missing;
  for (const auto& output : outputs) {
    if (!output->TakeReadyMask()) missing.push_back(output);
  }
  for (const auto& output : missing) output->ExpectMask();
  return missing;
}

}  // namespace

MaskWorker::~MaskWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void MaskWorker::Compute(std::span<const std::shared_ptr<ConstrainedOutput>> outputs) {
  HandOver(ExpectMasks(outputs));
}

void MaskWorker::ComputeBesideReader(std::span<const std::shared_ptr<ConstrainedOutput>> outputs) {
  Outputs missing = ExpectMasks(outputs);
  if (missing.empty()) return;
  const CompiledConstraint* const first = &missing.front()->constraint();
  std::erase_if(missing, [&](const auto& output) { return &output->constraint() == first; });
  HandOver(missing);
}

// The last one first: a reader begins with the first.
void MaskWorker::HandOver(const Outputs& outputs) {
  if (outputs.empty()) return;
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  {
    const std::lock_guard lock(mutex_);
    waiting_.insert(waiting_.end(), outputs.rbegin(), outputs.rend());
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
      output = waiting_.front().lock();
      waiting_.pop_front();
    }
    if (output != nullptr) output->ComputeMask();
  }
}

}  // namespace nsa
