#include "tests/kernels/nsa_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace nsa::testing {
namespace {

std::vector<double> Scores(const TestCache& cache, int64_t sequence, int64_t kv_head,
                           const std::vector<int64_t>& rows, const float* q, double scale) {
  std::vector<double> scores;
  for (int64_t row : rows) {
    double score = 0;
    for (int64_t c = 0; c < cache.layout().d_k; ++c) {
      score += static_cast<double>(q[c]) * cache.K(sequence, row, kv_head, c);
    }
    scores.push_back(score * scale);
  }
  return scores;
}

double LogSumExp(const std::vector<double>& scores) {
  if (scores.empty()) return -std::numeric_limits<double>::infinity();
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double score : scores) sum += std::exp(score - max);
  return max + std::log(sum);
}

}  // namespace

ReferenceOutput ReferenceAttention(const TestCache& cache, int64_t sequence, int64_t kv_head,
                                   const std::vector<int64_t>& rows, const float* q, double scale) {
  const std::vector<double> scores = Scores(cache, sequence, kv_head, rows, q, scale);
  ReferenceOutput result;
  result.lse = LogSumExp(scores);
  result.out.assign(static_cast<size_t>(cache.layout().d_v), 0.0);
  for (size_t i = 0; i < rows.size(); ++i) {
    const double p = std::exp(scores[i] - result.lse);
    for (size_t c = 0; c < result.out.size(); ++c) {
      result.out[c] += p * cache.V(sequence, rows[i], kv_head, static_cast<int64_t>(c));
    }
  }
  return result;
}

std::vector<int64_t> VisibleCompressedRows(const NsaShape& shape, int64_t t) {
  std::vector<int64_t> rows;
  const int64_t offset = shape.span_tokens / shape.span_stride - 1;
  for (int64_t i = 0; i * shape.span_stride + shape.span_tokens - 1 <= t; ++i) {
    rows.push_back(i + offset);
  }
  return rows;
}

std::vector<int64_t> VisibleWindow(int64_t window_tokens, int64_t t) {
  std::vector<int64_t> rows;
  for (int64_t j = 0; j <= t; ++j) {
    if (j > t - window_tokens) rows.push_back(j);
  }
  return rows;
}

std::vector<int64_t> VisibleTokens(int64_t t) { return VisibleWindow(t + 1, t); }

std::vector<int64_t> VisibleInBlocks(const NsaShape& shape, const std::vector<int64_t>& blocks,
                                     int64_t t) {
  std::vector<int64_t> rows;
  for (int64_t j = 0; j <= t; ++j) {
    if (std::count(blocks.begin(), blocks.end(), j / shape.block_tokens) > 0) rows.push_back(j);
  }
  return rows;
}

std::vector<double> ReferenceImportance(const NsaShape& shape, const TestCache& rows,
                                        int64_t sequence, int64_t kv_head, int64_t t,
                                        const float* q, int64_t group_size, double scale) {
  const int64_t a = shape.block_tokens / shape.span_stride;
  const int64_t e = shape.span_tokens / shape.span_stride;
  const std::vector<int64_t> visible = VisibleCompressedRows(shape, t);
  const auto num_rows = static_cast<int64_t>(visible.size());
  std::vector<double> importance(static_cast<size_t>(t / shape.block_tokens + 1), 0.0);
  for (int64_t h = 0; h < group_size; ++h) {
    const std::vector<double> scores =
        Scores(rows, sequence, kv_head, visible, q + h * rows.layout().d_k, scale);
    const double lse = LogSumExp(scores);
    for (size_t j = 0; j < importance.size(); ++j) {
      for (int64_t k = 0; k <= a + e - 2; ++k) {
        const int64_t i = a * static_cast<int64_t>(j) - (e - 1) + k;
        if (i < 0 || i >= num_rows) continue;
        const int64_t weight = std::min({k + 1, a, e, a + e - 1 - k});
        importance[j] +=
            static_cast<double>(weight) * std::exp(scores[static_cast<size_t>(i)] - lse);
      }
    }
  }
  return importance;
}

std::vector<int64_t> ReferenceForced(const NsaShape& shape, int64_t t) {
  const int64_t b = t / shape.block_tokens;
  std::set<int64_t> forced;
  for (int64_t j = 0; j < shape.num_initial; ++j) forced.insert(j);
  for (int64_t j = b - shape.num_local + 1; j <= b; ++j) forced.insert(j);
  std::vector<int64_t> inside;
  for (int64_t j : forced) {
    if (j >= 0 && j <= b) inside.push_back(j);
  }
  return inside;
}

std::vector<int64_t> ReferenceSelection(const NsaShape& shape, int64_t t,
                                        const std::vector<double>& importance) {
  std::vector<int64_t> chosen = ReferenceForced(shape, t);
  std::vector<int64_t> others;
  for (int64_t j = 0; j <= t / shape.block_tokens; ++j) {
    if (std::count(chosen.begin(), chosen.end(), j) == 0) others.push_back(j);
  }
  std::stable_sort(others.begin(), others.end(), [&](int64_t x, int64_t y) {
    return importance[static_cast<size_t>(x)] > importance[static_cast<size_t>(y)];
  });
  for (int64_t j : others) {
    if (static_cast<int64_t>(chosen.size()) < shape.num_selected) chosen.push_back(j);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace nsa::testing
