#pragma once
// The nsa_trace of an answer: which blocks of the context each token's attention chose.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/request.h"

namespace nsa {

// What a client asked to see.
struct TraceWish {
  std::vector<int64_t> layers;  // empty: all
};

// How a call's traces are read.
struct TraceShape {
  int64_t num_layers = 0, num_kv_heads = 0;  // of the model
  std::vector<int64_t> shown_layers;
};

// The blocks that a KV head chose, ascending.
inline std::span<const int32_t> ChosenBlocks(const TokenTrace& trace, const TraceShape& shape,
                                             int64_t layer, int64_t kv_head) {
  const auto all = std::span<const int32_t>(trace.blocks);
  const size_t num_blocks = all.size() / (shape.num_layers * shape.num_kv_heads);
  auto blocks = all.subspan((layer * shape.num_kv_heads + kv_head) * num_blocks, num_blocks);
  while (!blocks.empty() && blocks.back() < 0) blocks = blocks.first(blocks.size() - 1);
  return blocks;
}

}  // namespace nsa
