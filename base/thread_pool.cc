#include "base/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/thread_name.h"

namespace nsa {
namespace {

// State::loop: this bit while threads may join the loop, and the number of workers inside below it.
constexpr uint32_t kOpen = 1U << 31;

// Loops of a model follow each other within microseconds, so a waiting thread first spins and only
// then sleeps.
constexpr int kSpinRounds = 2000;

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Waits until value != old, spinning before sleeping.
uint32_t WaitForChange(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int round = 0; round < kSpinRounds; ++round) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    CpuRelax();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::atomic<uint32_t> generation{0};  // counts loops started; a change wakes the workers
  std::atomic<uint32_t> loop{0};        // kOpen and the number of workers inside
  std::atomic<int64_t> next_item{0};
  std::atomic<bool> stopping{false};
  int64_t num_items = 0;       // written before `loop` is opened
  const Body* body = nullptr;  // likewise

  void RunItems(int worker) {
    for (int64_t item = next_item.fetch_add(1); item < num_items; item = next_item.fetch_add(1)) {
      (*body)(item, worker);
    }
  }

  // False when the loop was closed before this worker woke up: then nobody waits for it.
  bool Enter() {
    uint32_t now = loop.load(std::memory_order_acquire);
    while ((now & kOpen) != 0) {
      if (loop.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void WorkerLoop(int worker) {
    NameThisThread("nsa-compute");
    uint32_t seen = 0;
    while (true) {
      seen = WaitForChange(generation, seen);
      if (stopping.load(std::memory_order_acquire)) return;
      if (!Enter()) continue;
      RunItems(worker);
      if (loop.fetch_sub(1, std::memory_order_acq_rel) == 1) loop.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  NSA_CHECK_GE(num_threads, 1);
  for (int i = 1; i < num_threads; ++i) {
    state_->workers.emplace_back([state = state_.get(), i] { state->WorkerLoop(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stopping.store(true, std::memory_order_release);
  state_->generation.fetch_add(1, std::memory_order_acq_rel);
  state_->generation.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::ParallelFor(int64_t num_items, Body body) {
  if (num_items <= 0) return;
  if (num_items == 1 || state_->workers.empty()) {
    for (int64_t item = 0; item < num_items; ++item) body(item, /*worker=*/0);
    return;
  }
  state_->num_items = num_items;
  state_->body = &body;
  state_->next_item.store(0, std::memory_order_relaxed);
  state_->loop.store(kOpen, std::memory_order_release);
  state_->generation.fetch_add(1, std::memory_order_acq_rel);
  state_->generation.notify_all();
  state_->RunItems(/*worker=*/0);
  // Every item is claimed; a worker that has not come by now would only be waited for.
  uint32_t inside = state_->loop.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while (inside != 0) inside = WaitForChange(state_->loop, inside);
}

}  // namespace nsa
