#pragma once
// Sequences with cached tokens and compressed rows, and the four attentions over them, each once
// through the kernels and once through the reference.

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/nsa_cache.h"

namespace nsa::testing {

struct Geometry {
  std::string name;
  NsaShape shape;
  int64_t num_kv_heads = 1;
  int64_t group_size = 1;
  int64_t d_k = 8;
  int64_t d_v = 8;
  DType dtype = DType::kF32;  // of the caches
  DeviceType device = DeviceType::kCpu;
  DType activation = DType::kF32;
};
inline void PrintTo(const Geometry& geometry, std::ostream* os) { *os << geometry.name; }

enum class Branch { kCompressed, kSelected, kWindow, kWindowRing, kDense };
inline constexpr Branch kBranches[] = {Branch::kCompressed, Branch::kSelected, Branch::kWindow,
                                       Branch::kWindowRing, Branch::kDense};

struct AttentionOutputs {
  Tensor out;  // [T, H, d_v] activation
  Tensor lse;  // [T, H]
};

class AttentionWorld {
 public:
  // lengths[s] tokens of sequence s are in the cache. Queries, gates, contents and chosen blocks
  // are random but a function of (seed, sequence, position) alone.
  AttentionWorld(const Geometry& geometry, std::vector<int64_t> lengths, uint32_t seed = 1);

  AttentionOutputs Run(Branch branch, const std::vector<TestToken>& tokens,
                       ThreadPool* threads = nullptr) const;
  // Compares outputs of Run with the reference.
  void Check(Branch branch, const std::vector<TestToken>& tokens,
             const AttentionOutputs& actual) const;

  const Geometry& geometry() const { return geometry_; }
  int64_t num_heads() const { return geometry_.num_kv_heads * geometry_.group_size; }
  float scale() const;
  // [T, H, d_k] f32, rounded to the activation dtype.
  Tensor Queries(const std::vector<TestToken>& tokens) const;
  // Logits [T, H, 3].
  Tensor Gates(const std::vector<TestToken>& tokens) const;
  // Forced blocks and random others, ascending.
  std::vector<int64_t> ChosenBlocks(const TestToken& token, int64_t kv_head) const;
  TestCache& tokens_cache() { return *tokens_; }
  TestCache& rows_cache() { return *rows_; }
  TestCache& ring_cache() { return *ring_; }
  const TestCache& rows_cache() const { return *rows_; }
  const TestCache& tokens_cache() const { return *tokens_; }
  const TestCache& ring_cache() const { return *ring_; }
  // The last token of every sequence.
  std::vector<TestToken> LastTokens() const;
  std::vector<TestToken> AllTokens() const;

 private:
  // [T, H, num_columns] f32 with a deviation of 2.
  Tensor OfTokens(const std::vector<TestToken>& tokens, int64_t num_columns, uint32_t salt) const;
  std::vector<int64_t> VisibleRows(Branch branch, const TestToken& token, int64_t kv_head) const;
  const TestCache& CacheOf(Branch branch) const;
  // [T, K, num_selected]
  Tensor Blocks(const std::vector<TestToken>& tokens) const;

  Geometry geometry_;
  std::vector<int64_t> lengths_;
  uint32_t seed_;
  std::unique_ptr<TestCache> tokens_, rows_, ring_;
};

using BlockList = std::vector<int64_t>;
// The chosen blocks of a token and KV head, whose queries are q [G, d_k]: exact up to blocks whose
// importances differ by less than `relative`, what fp32 arithmetic can tell.
void CheckChoice(const AttentionWorld& world, const TestToken& token, int64_t kv_head,
                 const float* q, const BlockList& chosen, double relative = 1e-5);

}  // namespace nsa::testing
