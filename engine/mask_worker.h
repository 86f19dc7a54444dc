#pragma once
// MaskWorker: computes the masks of constrained outputs beside the engine's steps.

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/constrained_output.h"

namespace nsa {

// One thread, which begins with the first mask that it gets. Whoever reads a mask that the thread
// has not begun computes it; what a mask says does not depend on who computes it, and when.
class MaskWorker {
 public:
  using Outputs = std::vector<std::shared_ptr<ConstrainedOutput>>;

  MaskWorker() = default;
  // Ends the thread; masks that nobody has begun stay expected.
  ~MaskWorker();
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // Asks for the masks of the outputs' next tokens. Those that are ready are taken at once: waking
  // the thread would cost the step more than the copy. An output may be dropped meanwhile.
  void Compute(std::span<const std::shared_ptr<ConstrainedOutput>> outputs);
  // The same for a caller that goes on to read the masks, first to last: the thread only gets those
  // of other constraints than the first, for masks of one constraint are computed one by one.
  void ComputeBesideReader(std::span<const std::shared_ptr<ConstrainedOutput>> outputs);

 private:
  void HandOver(const Outputs& outputs);
  void Run();

  std::mutex mutex_;
  std::condition_variable work_arrived_;
  // Not owned: an output that ends is not computed, nor kept.
  std::deque<std::weak_ptr<ConstrainedOutput>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nsa
