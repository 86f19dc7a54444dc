#pragma once
// MaskWorker: computes the masks of constrained outputs beside the engine's steps.

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "engine/constrained_output.h"

namespace nsa {

// One thread, which begins with the first mask. Masks come in the order in which they were asked
// for; what a mask says does not depend on when it is computed.
class MaskWorker {
 public:
  MaskWorker() = default;
  // Ends the thread; masks that nobody has begun stay expected.
  ~MaskWorker();
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // Asks for the mask of the output's next token. One that is ready is taken at once: waking the
  // thread would cost the step more than the copy. The output may be dropped meanwhile.
  void Compute(std::shared_ptr<ConstrainedOutput> output);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::deque<std::shared_ptr<ConstrainedOutput>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nsa
