#pragma once
// A step of the engine: decode tokens, then tiles of chunks; and what its results may differ by.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/kernels/attention_world.h"
#include "tests/support/compare.h"

namespace nsa::testing {

// Tokens of one step: first decode tokens, then chunks.
class Step {
 public:
  void AddDecode(TestToken token) {
    NSA_CHECK(tiles_.empty());
    tokens_.push_back(token);
    ++num_decode_tokens_;
  }
  // Positions [begin, end) of a sequence, cut into tiles.
  void AddChunk(int32_t sequence, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end;) {
      const int64_t until = std::min(end, (first / kTileTokens + 1) * kTileTokens);
      tiles_.insert(tiles_.end(),
                    {sequence, static_cast<int32_t>(tokens_.size()),
                     static_cast<int32_t>(until - first), static_cast<int32_t>(first)});
      for (const TestToken& token : Chunk(sequence, first, until)) tokens_.push_back(token);
      first = until;
    }
  }

  const std::vector<TestToken>& tokens() const { return tokens_; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_decode_tokens() const { return num_decode_tokens_; }
  Tensor Tiles() const {
    Tensor tiles(DType::kI32, {static_cast<int64_t>(tiles_.size()) / 4, 4});
    std::copy(tiles_.begin(), tiles_.end(), tiles.data<int32_t>());
    return tiles;
  }

 private:
  std::vector<TestToken> tokens_;
  std::vector<int32_t> tiles_;
  int64_t num_decode_tokens_ = 0;
};

// fp32 copies of a cache, which the CPU reads whatever the GPU's dtype.
struct F32Cache {
  Tensor k, v;
  PagedKv kv;
  explicit F32Cache(const TestCache& cache)
      : k(Converted(cache.k(), DType::kF32)),
        v(Converted(cache.v(), DType::kF32)),
        kv{k.view(), v.view(), cache.table().view()} {}
};

inline std::vector<double> Elements(const Tensor& tensor) {
  std::vector<double> elements;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) elements.push_back(tensor.At(i));
  return elements;
}

// Weights of the softmax may be rounded to the 16-bit type before they meet the values.
inline Tolerance StepTolerance(const Geometry& g) {
  if (g.activation == DType::kBF16) return {1e-2, 2e-2};
  if (g.activation == DType::kF16) return {2e-3, 4e-3};
  return {1e-5, 1e-4};
}

}  // namespace nsa::testing
