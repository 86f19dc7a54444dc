#pragma once
// A fixed set of threads for data-parallel loops of CPU kernels.

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace nsa {

class ThreadPool {
 public:
  // num_threads >= 1 counts the calling thread, which takes part in every loop.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls body(item, worker) for every item in [0, num_items), in any order, and returns when all
  // are done. `worker` in [0, num_threads()) names the thread, for per-thread scratch. One caller
  // at a time; the body must not call ParallelFor. Items are claimed one by one: make them coarse.
  using Body = absl::FunctionRef<void(int64_t item, int worker)>;
  void ParallelFor(int64_t num_items, Body body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nsa
