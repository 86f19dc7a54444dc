#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>

#include "bench/kernels/cases.h"
#include "kernels/kv_store.h"
#include "kernels/nsa.h"

namespace nsa::bench {
namespace {

constexpr int64_t kKvHeads = 1, kGroup = 16, kHeads = kKvHeads * kGroup;
constexpr int64_t kDk = 128, kDv = 128;
constexpr int64_t kHidden = 128;  // of phi

// A tensor whose bf16 or f32 elements are small numbers that differ.
struct Buffer {
  std::vector<char> storage;
  TensorView view;
  Buffer(DType dtype, std::initializer_list<int64_t> shape) : view(nullptr, dtype, shape) {
    storage.resize(static_cast<size_t>(view.num_bytes()));
    view = TensorView(storage.data(), dtype, shape);
    for (int64_t i = 0; i < view.num_elements(); ++i) {
      const float value = static_cast<float>((i * 2654435761U >> 8) % 2001) / 1000.0F - 1.0F;
      if (dtype == DType::kF32) view.data<float>()[i] = value;
      if (dtype == DType::kBF16) view.data<BFloat16>()[i] = BFloat16(value);
      if (dtype == DType::kI32) view.data<int32_t>()[i] = static_cast<int32_t>(i);
    }
  }
};

struct Cache {
  Buffer k, v, table;
  Cache(int64_t num_pages, int64_t page_rows)
      : k(DType::kBF16, {num_pages, kKvHeads, page_rows, kDk}),
        v(DType::kBF16, {num_pages, kKvHeads, page_rows, kDv}),
        table(DType::kI32, {1, num_pages}) {}
  PagedKv kv() const { return {k.view, v.view, table.view}; }
};

// `num_tokens` query tokens at the end of one sequence of `context_tokens`.
class Step {
 public:
  Step(int64_t context_tokens, int64_t num_tokens, int num_threads)
      : context_tokens_(context_tokens),
        num_tokens_(num_tokens),
        num_pages_((context_tokens + shape_.block_tokens - 1) / shape_.block_tokens),
        tokens_(num_pages_, shape_.block_tokens),
        rows_(num_pages_, shape_.rows_per_page()),
        sequence_(DType::kI32, {num_tokens}),
        position_(DType::kI32, {num_tokens}),
        q_(DType::kF32, {num_tokens, kHeads, kDk}),
        out_(DType::kF32, {num_tokens, kHeads, kDv}),
        lse_(DType::kF32, {num_tokens, kHeads}),
        blocks_(DType::kI32, {num_tokens, kKvHeads, shape_.num_selected}),
        scratch_(DType::kF32, {num_threads, num_pages_}),
        fc1_(DType::kF32, {kKvHeads, kHidden, shape_.span_tokens * kDk}),
        fc2_k_(DType::kF32, {kKvHeads, kDk, kHidden}),
        fc2_v_(DType::kF32, {kKvHeads, kDv, kHidden}) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      sequence_.view.data<int32_t>()[t] = 0;
      position_.view.data<int32_t>()[t] = static_cast<int32_t>(context_tokens - num_tokens + t);
    }
  }

  std::vector<Result> Run(const BenchContext& context) {
    const Stream stream{.threads = &context.threads};
    const TokenMap map{sequence_.view, position_.view};
    const float scale = 1.0F / std::sqrt(static_cast<float>(kDk));
    const TensorView &q = q_.view, &out = out_.view, &lse = lse_.view, &blocks = blocks_.view;
    const double rows = MeanOverTokens([&](int64_t seen) { return shape_.NumRows(seen); });
    const double scored = MeanOverTokens([&](int64_t seen) {
      // Importance is not computed while all blocks are chosen.
      return seen > shape_.num_selected * shape_.block_tokens ? shape_.NumRows(seen) : 0;
    });
    const double selected = MeanOverTokens(
        [&](int64_t seen) { return std::min(seen, shape_.num_selected * shape_.block_tokens); });
    const double window =
        MeanOverTokens([&](int64_t seen) { return std::min(seen, shape_.window_tokens); });
    const double all = MeanOverTokens([](int64_t seen) { return seen; });
    std::vector<Result> results;
    const auto add = [&](const char* op, double rows_read, int64_t d,
                         const std::function<void()>& body) {
      results.push_back(Measure(context, op, rows_read, d, body));
    };
    add("compress rows, mlp", 0, 0, [&] { Compress(map, stream); });
    add("compressed attention", rows, kDk + kDv, [&] {
      CompressedAttention({shape_, map, q, rows_.kv(), out, lse, scale}, stream);
    });
    add("select blocks", scored, kDk, [&] {
      SelectBlocks({shape_, map, q, rows_.kv(), lse, blocks, scratch_.view, scale}, stream);
    });
    add("selected attention", selected, kDk + kDv, [&] {
      SelectedAttention({shape_, map, q, tokens_.kv(), blocks, out, lse, scale}, stream);
    });
    add("window attention", window, kDk + kDv, [&] {
      WindowAttention({shape_.window_tokens, map, q, tokens_.kv(), out, lse, scale}, stream);
    });
    double nsa_us = 0;
    for (const Result& result : results) nsa_us += result.us;
    results.push_back(MakeResult(context, "all NSA branches", Shape(), nsa_us / 1e6, 0, 0));
    add("dense attention", all, kDk + kDv, [&] {
      DenseAttention({map, q, tokens_.kv(), out, lse, scale}, stream);
    });
    return results;
  }

 private:
  std::string Shape() const {
    return std::to_string(num_tokens_) + " token at " + std::to_string(context_tokens_) +
           ", G 16, d " + std::to_string(kDk);
  }

  // Mean of count(tokens that a token sees) over the step's tokens.
  template <typename Count>
  double MeanOverTokens(Count count) const {
    double sum = 0;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      sum += static_cast<double>(count(context_tokens_ - num_tokens_ + t + 1));
    }
    return sum / static_cast<double>(num_tokens_);
  }

  // The spans that end in the step, through an MLP of 128 hidden units per KV head.
  void Compress(const TokenMap& map, const Stream& stream) {
    const PhiWeights phi_k{.fc1 = fc1_.view, .fc2 = fc2_k_.view};
    const PhiWeights phi_v{.fc1 = fc1_.view, .fc2 = fc2_v_.view};
    CompressRows({.shape = shape_,
                  .phi = PhiKind::kMlp,
                  .tokens = map,
                  .raw = tokens_.kv(),
                  .rows = rows_.kv(),
                  .phi_k = phi_k,
                  .phi_v = phi_v},
                 stream);
  }

  // rows_read rows of d elements per token, each used by all heads of its group.
  Result Measure(const BenchContext& context, const char* op, double rows_read, int64_t d,
                 const std::function<void()>& body) {
    const double seconds = MedianSeconds(body);
    const double elements = rows_read * static_cast<double>(d * kKvHeads);
    const bool is_decode = num_tokens_ == 1;
    return MakeResult(context, op, Shape(), seconds, is_decode ? elements * 2 : 0,
                      elements * 2 * kGroup * static_cast<double>(num_tokens_));
  }

  const NsaShape shape_;
  const int64_t context_tokens_, num_tokens_, num_pages_;
  Cache tokens_, rows_;
  Buffer sequence_, position_, q_, out_, lse_, blocks_, scratch_, fc1_, fc2_k_, fc2_v_;
};

}  // namespace

std::vector<Result> AttentionCases(const BenchContext& context) {
  std::vector<Result> results;
  for (int64_t context_tokens : {1024, 4096, 16384, 32768, 65536}) {
    for (Result& r : Step(context_tokens, 1, context.threads.num_threads()).Run(context)) {
      results.push_back(std::move(r));
    }
  }
  for (int64_t context_tokens : {512, 4096}) {
    for (Result& r : Step(context_tokens, 512, context.threads.num_threads()).Run(context)) {
      results.push_back(std::move(r));
    }
  }
  return results;
}

}  // namespace nsa::bench
