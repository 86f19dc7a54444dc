#include "tests/kernels/attention_world.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/kernels/nsa_reference.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

// A generator of its own for everything that belongs to one token.
std::mt19937 TokenRandom(uint32_t seed, const TestToken& token, uint32_t salt) {
  std::seed_seq seq{seed, static_cast<uint32_t>(token.sequence),
                    static_cast<uint32_t>(token.position), salt};
  return std::mt19937(seq);
}

}  // namespace

AttentionWorld::AttentionWorld(const Geometry& geometry, std::vector<int64_t> lengths,
                               uint32_t seed)
    : geometry_(geometry), lengths_(std::move(lengths)), seed_(seed) {
  std::mt19937 random(seed);
  const NsaShape& shape = geometry.shape;
  CacheLayout layout{.num_kv_heads = geometry.num_kv_heads,
                     .d_k = geometry.d_k,
                     .d_v = geometry.d_v,
                     .page_rows = shape.block_tokens,
                     .dtype = geometry.dtype};
  tokens_ = std::make_unique<TestCache>(layout, lengths_, random);
  layout.page_rows = shape.rows_per_page();
  std::vector<int64_t> num_rows;
  for (int64_t length : lengths_) {
    const int64_t rows = shape.NumRows(length);
    num_rows.push_back(rows == 0 ? 0 : rows + shape.row_offset());
  }
  rows_ = std::make_unique<TestCache>(layout, num_rows, random, *tokens_);
  // Wide enough for a pass over the whole of the longest sequence, in pages of whole tiles.
  layout.page_rows = kTileTokens;
  const int64_t ring_rows =
      shape.window_tokens + *std::max_element(lengths_.begin(), lengths_.end()) - 1;
  layout.ring_rows = (ring_rows + kTileTokens - 1) / kTileTokens * kTileTokens;
  ring_ = std::make_unique<TestCache>(layout, lengths_, random);
}

float AttentionWorld::scale() const { return 1.0F / std::sqrt(static_cast<float>(geometry_.d_k)); }

Tensor AttentionWorld::OfTokens(const std::vector<TestToken>& tokens, int64_t num_columns,
                                uint32_t salt) const {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  Tensor values(DType::kF32, {num_tokens, num_heads(), num_columns});
  const int64_t per_token = num_heads() * num_columns;
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::mt19937 random = TokenRandom(seed_, tokens[static_cast<size_t>(t)], salt);
    std::normal_distribution<double> normal(0, 2);
    for (int64_t i = 0; i < per_token; ++i) values.Set(t * per_token + i, normal(random));
  }
  return values;
}

Tensor AttentionWorld::Gates(const std::vector<TestToken>& tokens) const {
  return OfTokens(tokens, 3, 0);
}

Tensor AttentionWorld::Queries(const std::vector<TestToken>& tokens) const {
  Tensor q = OfTokens(tokens, geometry_.d_k, 1);
  const int64_t per_token = num_heads() * geometry_.d_k;
  for (size_t t = 0; t < tokens.size(); ++t) {  // padding is NaN
    float* const row = q.data<float>() + static_cast<int64_t>(t) * per_token;
    if (tokens[t].position < 0) std::fill(row, row + per_token, std::nanf(""));
  }
  return geometry_.activation == DType::kF32
             ? std::move(q)
             : Converted(Converted(q, geometry_.activation), DType::kF32);
}

std::vector<int64_t> AttentionWorld::ChosenBlocks(const TestToken& token, int64_t kv_head) const {
  std::mt19937 random = TokenRandom(seed_, token, 2 + static_cast<uint32_t>(kv_head));
  std::vector<double> importance;
  for (int64_t j = 0; j <= token.position / geometry_.shape.block_tokens; ++j) {
    importance.push_back(static_cast<double>(random()));
  }
  return ReferenceSelection(geometry_.shape, token.position, importance);
}

Tensor AttentionWorld::Blocks(const std::vector<TestToken>& tokens) const {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const int64_t num_selected = geometry_.shape.num_selected;
  Tensor blocks(DType::kI32, {num_tokens, geometry_.num_kv_heads, num_selected});
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int64_t head = 0; head < geometry_.num_kv_heads; ++head) {
      const TestToken& token = tokens[static_cast<size_t>(t)];
      if (token.position < 0) continue;
      const std::vector<int64_t> chosen = ChosenBlocks(token, head);
      for (size_t i = 0; i < chosen.size(); ++i) {
        blocks.Set((t * geometry_.num_kv_heads + head) * num_selected + static_cast<int64_t>(i),
                   static_cast<double>(chosen[i]));
      }
    }
  }
  return blocks;
}

const TestCache& AttentionWorld::CacheOf(Branch branch) const {
  if (branch == Branch::kCompressed) return *rows_;
  return branch == Branch::kWindowRing ? *ring_ : *tokens_;
}

std::vector<int64_t> AttentionWorld::VisibleRows(Branch branch, const TestToken& token,
                                                 int64_t kv_head) const {
  const NsaShape& shape = geometry_.shape;
  switch (branch) {
    case Branch::kCompressed:
      return VisibleCompressedRows(shape, token.position);
    case Branch::kSelected:
      return VisibleInBlocks(shape, ChosenBlocks(token, kv_head), token.position);
    case Branch::kWindow:
    case Branch::kWindowRing:
      return VisibleWindow(shape.window_tokens, token.position);
    case Branch::kDense:
      return VisibleTokens(token.position);
  }
  return {};
}

AttentionOutputs AttentionWorld::Run(Branch branch, const std::vector<TestToken>& tokens,
                                     ThreadPool* threads) const {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const NsaShape& shape = geometry_.shape;
  const TestTokens host_map(tokens);
  const Tensor host_q = Converted(Queries(tokens), geometry_.activation);
  AttentionOutputs outputs{Tensor(geometry_.activation, {num_tokens, num_heads(), geometry_.d_v}),
                           Tensor(DType::kF32, {num_tokens, num_heads()})};
  const Tensor blocks = branch == Branch::kSelected ? Blocks(tokens) : Tensor();
  OnDevice on(geometry_.device, threads);
  const TokenMap map = on(host_map.map());
  const PagedKv kv = on(CacheOf(branch).kv());
  const TensorView q = on(host_q), out = on(outputs.out), lse = on(outputs.lse);
  switch (branch) {
    case Branch::kCompressed:
      CompressedAttention({shape, map, q, kv, out, lse, scale()}, on.stream());
      break;
    case Branch::kSelected:
      SelectedAttention({shape, map, q, kv, on(blocks), out, lse, scale()}, on.stream());
      break;
    case Branch::kWindow:
    case Branch::kWindowRing:
      WindowAttention({shape.window_tokens, map, q, kv, out, lse, scale()}, on.stream());
      break;
    case Branch::kDense:
      DenseAttention({map, q, kv, out, lse, scale()}, on.stream());
      break;
  }
  on.Fetch();
  return outputs;
}

void AttentionWorld::Check(Branch branch, const std::vector<TestToken>& tokens,
                           const AttentionOutputs& actual) const {
  const Tensor q = Queries(tokens);
  std::vector<double> out, lse;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int64_t head = 0; head < num_heads(); ++head) {
      const int64_t kv_head = head / geometry_.group_size;
      const int64_t row = static_cast<int64_t>(t) * num_heads() + head;
      const std::vector<int64_t> rows =
          tokens[t].position < 0 ? std::vector<int64_t>{} : VisibleRows(branch, tokens[t], kv_head);
      const ReferenceOutput expected =
          ReferenceAttention(CacheOf(branch), tokens[t].sequence, kv_head, rows,
                             q.data<float>() + row * geometry_.d_k, scale());
      out.insert(out.end(), expected.out.begin(), expected.out.end());
      lse.push_back(expected.lse);
    }
  }
  EXPECT_TRUE(IsClose(actual.out, out, ToleranceOf(geometry_.activation, {1e-5, 1e-4})));
  EXPECT_TRUE(IsClose(actual.lse, lse, {1e-5, 1e-5}));
}

void CheckChoice(const AttentionWorld& world, const TestToken& token, int64_t kv_head,
                 const float* q, const BlockList& chosen, double relative) {
  const NsaShape& shape = world.geometry().shape;
  const std::vector<double> importance =
      ReferenceImportance(shape, world.rows_cache(), token.sequence, kv_head, token.position, q,
                          world.geometry().group_size, world.scale());
  const BlockList expected = ReferenceSelection(shape, token.position, importance);
  ASSERT_EQ(chosen.size(), expected.size());
  ASSERT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  ASSERT_EQ(std::set<int64_t>(chosen.begin(), chosen.end()).size(), chosen.size());
  for (int64_t block : ReferenceForced(shape, token.position)) {
    EXPECT_TRUE(std::count(chosen.begin(), chosen.end(), block)) << "forced block " << block;
  }
  for (size_t i = 0; i < chosen.size(); ++i) {
    ASSERT_GE(chosen[i], 0);
    ASSERT_LT(chosen[i], static_cast<int64_t>(importance.size()));
  }
  BlockList missing, extra;
  std::set_difference(expected.begin(), expected.end(), chosen.begin(), chosen.end(),
                      std::back_inserter(missing));
  std::set_difference(chosen.begin(), chosen.end(), expected.begin(), expected.end(),
                      std::back_inserter(extra));
  for (size_t i = 0; i < missing.size(); ++i) {
    EXPECT_NEAR(importance[extra[i]], importance[missing[i]],
                relative * importance[missing[i]] + 1e-7)
        << "block " << extra[i] << " instead of " << missing[i] << " at position "
        << token.position;
  }
}

std::vector<TestToken> AttentionWorld::LastTokens() const {
  std::vector<TestToken> tokens;
  for (size_t s = 0; s < lengths_.size(); ++s) {
    tokens.push_back({static_cast<int32_t>(s), static_cast<int32_t>(lengths_[s]) - 1});
  }
  return tokens;
}

std::vector<TestToken> AttentionWorld::AllTokens() const {
  std::vector<TestToken> tokens;
  for (size_t s = 0; s < lengths_.size(); ++s) {
    for (const TestToken& token : Chunk(static_cast<int32_t>(s), 0, lengths_[s])) {
      tokens.push_back(token);
    }
  }
  return tokens;
}

}  // namespace nsa::testing
