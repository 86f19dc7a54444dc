#pragma once
// ByteBudget: bytes that many may hold together; ByteShare: what one of them holds.

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace nsa {

// Thread-safe.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t num_bytes) : num_free_(num_bytes) {}

  int64_t num_free() const { return num_free_; }

 private:
  friend class ByteShare;
  // False, and nothing is taken, if fewer are free.
  bool Take(int64_t num_bytes);
  void Give(int64_t num_bytes) { num_free_ += num_bytes; }

  std::atomic<int64_t> num_free_;
};

// Not thread-safe. What it holds goes back at its end.
class ByteShare {
 public:
  explicit ByteShare(std::shared_ptr<ByteBudget> budget) : budget_(std::move(budget)) {}
  ~ByteShare() { Release(); }
  ByteShare(const ByteShare&) = delete;
  ByteShare& operator=(const ByteShare&) = delete;

  // Holds at least so many bytes from now on; false if the budget has too few left.
  bool GrowTo(int64_t num_bytes);
  void Release();

 private:
  const std::shared_ptr<ByteBudget> budget_;
  int64_t num_held_ = 0;
};

}  // namespace nsa
