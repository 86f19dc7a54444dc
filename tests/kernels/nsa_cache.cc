#include "tests/kernels/nsa_cache.h"

#include <algorithm>
#include <numeric>

namespace nsa::testing {
namespace {

constexpr double kDeviation = 1;

Tensor MakeTable(const CacheLayout& layout, const std::vector<int64_t>& rows_of, int64_t num_pages,
                 std::mt19937& random) {
  const int64_t page_rows = layout.page_rows;
  int64_t width = std::max<int64_t>(1, layout.ring_rows / page_rows);
  for (int64_t rows : rows_of) {
    if (layout.ring_rows == 0) width = std::max(width, (rows + page_rows - 1) / page_rows);
  }
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), random);
  Tensor table(DType::kI32, {static_cast<int64_t>(rows_of.size()), width});
  size_t next = 0;
  for (size_t s = 0; s < rows_of.size(); ++s) {
    const int64_t num = layout.ring_rows > 0 ? width : (rows_of[s] + page_rows - 1) / page_rows;
    for (int64_t p = 0; p < num; ++p) {
      table.data<int32_t>()[static_cast<int64_t>(s) * width + p] = pages[next++];
    }
  }
  return table;
}

}  // namespace

TestCache::TestCache(const CacheLayout& layout, const std::vector<int64_t>& rows_of,
                     std::mt19937& random)
    : layout_(layout) {
  if (layout.ring_rows % layout.page_rows != 0) layout_.page_rows = layout.ring_rows;
  int64_t num_pages = 2;
  for (int64_t rows : rows_of) {
    num_pages += std::max(rows, layout.ring_rows) / layout_.page_rows + 1;
  }
  table_ = std::make_shared<Tensor>(MakeTable(layout_, rows_of, num_pages, random));
  Fill(rows_of, num_pages, random);
}

TestCache::TestCache(const CacheLayout& layout, const std::vector<int64_t>& rows_of,
                     std::mt19937& random, const TestCache& other)
    : layout_(layout), table_(other.table_) {
  Fill(rows_of, other.k_.view().dim(0), random);
}

void TestCache::Fill(const std::vector<int64_t>& rows_of, int64_t num_pages, std::mt19937& random) {
  const CacheLayout& layout = layout_;
  k_ = Tensor(layout.dtype, {num_pages, layout.num_kv_heads, layout_.page_rows, layout.d_k});
  v_ = Tensor(layout.dtype, {num_pages, layout.num_kv_heads, layout_.page_rows, layout.d_v});
  std::normal_distribution<double> normal(0, kDeviation);
  for (size_t s = 0; s < rows_of.size(); ++s) {
    for (int64_t row = 0; row < rows_of[s]; ++row) {
      for (int64_t head = 0; head < layout.num_kv_heads; ++head) {
        const auto sequence = static_cast<int64_t>(s);
        for (int64_t c = 0; c < layout.d_k; ++c) SetK(sequence, row, head, c, normal(random));
        for (int64_t c = 0; c < layout.d_v; ++c) SetV(sequence, row, head, c, normal(random));
      }
    }
  }
}

int64_t TestCache::RowIndex(int64_t sequence, int64_t row, int64_t head) const {
  const int64_t width = table_->view().dim(1);
  const int64_t page = table_->data<int32_t>()[sequence * width + row / layout_.page_rows % width];
  NSA_CHECK_GE(page, 0);
  return (page * layout_.num_kv_heads + head) * layout_.page_rows + row % layout_.page_rows;
}

double TestCache::K(int64_t sequence, int64_t row, int64_t head, int64_t c) const {
  return k_.At(RowIndex(sequence, row, head) * layout_.d_k + c);
}
double TestCache::V(int64_t sequence, int64_t row, int64_t head, int64_t c) const {
  return v_.At(RowIndex(sequence, row, head) * layout_.d_v + c);
}
void TestCache::SetK(int64_t sequence, int64_t row, int64_t head, int64_t c, double value) {
  k_.Set(RowIndex(sequence, row, head) * layout_.d_k + c, value);
}
void TestCache::SetV(int64_t sequence, int64_t row, int64_t head, int64_t c, double value) {
  v_.Set(RowIndex(sequence, row, head) * layout_.d_v + c, value);
}

void TestCache::ChangeKeys(int64_t end, const KeyChange& change) {
  const int64_t capacity = table_->view().dim(1) * kv().page_rows();
  for (int64_t row = std::max<int64_t>(0, end - capacity); row < end; ++row) {
    if (row % change.every != 0) continue;
    for (int64_t head = 0; head < kv().num_kv_heads(); ++head) {
      for (int64_t c = 0; c < kv().d_k(); ++c) {
        SetK(0, row, head, c, K(0, row, head, c) * change.factor + change.offset);
      }
    }
  }
}

void TestCache::Clear() {
  const TensorView &k = k_.view(), &v = v_.view();
  std::fill_n(static_cast<uint8_t*>(k.raw()), k.num_bytes(), uint8_t{0xff});
  std::fill_n(static_cast<uint8_t*>(v.raw()), v.num_bytes(), uint8_t{0xff});
}

TestTokens::TestTokens(const std::vector<TestToken>& tokens) {
  std::vector<int32_t> sequence, position;
  for (const TestToken& token : tokens) {
    sequence.push_back(token.sequence);
    position.push_back(token.position);
  }
  sequence_ = I32Tensor(sequence);
  position_ = I32Tensor(position);
}

std::vector<TestToken> Chunk(int32_t sequence, int64_t begin, int64_t end) {
  std::vector<TestToken> tokens;
  for (int64_t t = begin; t < end; ++t) tokens.push_back({sequence, static_cast<int32_t>(t)});
  return tokens;
}

}  // namespace nsa::testing
