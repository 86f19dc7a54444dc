#pragma once
// Loops over the threads of a stream.

#include <algorithm>
#include <cstdint>

#include "kernels/device.h"

namespace nsa::cpu {

inline int NumThreads(const Stream& stream) {
  return stream.threads == nullptr ? 1 : stream.threads->num_threads();
}

// body(item, worker) for every item of [0, num_items), in any order.
template <typename Body>
void ParallelFor(const Stream& stream, int64_t num_items, Body&& body) {
  if (stream.threads != nullptr) return stream.threads->ParallelFor(num_items, body);
  for (int64_t item = 0; item < num_items; ++item) body(item, /*worker=*/0);
}

// body(begin, end) for consecutive pieces of [0, num_rows) of at least min_rows rows: a few pieces
// per thread, so that cheap rows are not claimed one by one.
template <typename Body>
void ParallelForRows(const Stream& stream, int64_t num_rows, int64_t min_rows, Body&& body) {
  constexpr int64_t kPiecesPerThread = 4;
  const int64_t max_pieces = NumThreads(stream) * kPiecesPerThread;
  const int64_t piece = std::max({min_rows, int64_t{1}, (num_rows + max_pieces - 1) / max_pieces});
  ParallelFor(stream, (num_rows + piece - 1) / piece, [&](int64_t item, int) {
    body(item * piece, std::min(num_rows, (item + 1) * piece));
  });
}

}  // namespace nsa::cpu
