// Times what runs beside attention and products in an 8B-class model: norms, SwiGLU, embeddings,
// stores, compressed rows of a prompt, sampling. Graphs of 12 launches over the same operands,
// which stay in the L2 where they fit, as in an engine; the start of a graph is part of its time.
//   small_bench [--json=FILE]

#include <cuda_bf16.h>

#include <functional>
#include <memory>

#include "bench/kernels/cuda/gpu_bench.cuh"
#include "kernels/nsa.h"
#include "kernels/sampling.h"
#include "kernels/transformer.h"

namespace nsa {
namespace {

constexpr int kLaunches = 12;
constexpr int64_t kHidden = 4096, kInner = 12288, kVocab = 128 * 1024;
constexpr int64_t kHeads = 64, kKvHeads = 4, kD = 128, kPageRows = 64;
constexpr NsaShape kShape{32, 16, 64, 16, 1, 2, 512};

class Bench : public GpuBench {
 public:
  using GpuBench::GpuBench;

  void Norms(int64_t num_tokens) {
    buffers_.clear();
    const TensorView x = Random(DType::kF32, num_tokens, kHidden);
    const TensorView y = Random(DType::kBF16, num_tokens, kHidden);
    const TensorView out = Random(DType::kBF16, num_tokens, kHidden);
    const TensorView weight = Random(DType::kF32, kHidden);
    Time("add, rms norm", num_tokens, kHidden, num_tokens * kHidden * (4 + 4 + 2 + 2), [&] {
      AddRmsNorm({.x = x, .y = y, .weight = weight, .out = out, .epsilon = 1e-5F}, stream_);
    });
  }

  void SwiGlus(int64_t num_tokens) {
    buffers_.clear();
    const TensorView gate_up = Random(DType::kBF16, num_tokens, 2 * kInner);
    const TensorView out = Random(DType::kBF16, num_tokens, kInner);
    Time("swiglu", num_tokens, kInner, num_tokens * kInner * (4 + 2), [&] {
      SwiGlu({gate_up, out}, stream_);
    });
  }

  void Embeddings(int64_t num_tokens) {
    buffers_.clear();
    const TensorView matrix = Random(DType::kBF16, kVocab, kHidden);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < num_tokens; ++i) {
      ids.push_back(static_cast<int32_t>(i * 2654435761 % kVocab));
    }
    const TensorView indices = Upload(ids);
    const TensorView embedded = Random(DType::kF32, num_tokens, kHidden);
    Time("embed", num_tokens, kHidden, num_tokens * kHidden * (2 + 4), [&] {
      EmbedTokens({.ids = indices, .weight = {kVocab, kHidden, matrix}, .out = embedded}, stream_);
    });
  }

  // A chunk of one sequence from position 0; a decode step's appends are decode_bench.py's.
  void Appends(int64_t num_tokens) {
    buffers_.clear();
    constexpr int64_t kColumns = kHeads * (kD + 3) + 3 * kKvHeads * 2 * kD;
    constexpr int64_t kUnits = 128;
    const int64_t num_pages = (num_tokens + kPageRows - 1) / kPageRows;
    std::vector<int32_t> positions, pages;
    for (int64_t i = 0; i < num_tokens; ++i) positions.push_back(static_cast<int32_t>(i));
    for (int64_t i = 0; i < num_pages; ++i) pages.push_back(static_cast<int32_t>(i));
    const TokenMap tokens{.sequence = Upload(std::vector<int32_t>(positions.size(), 0)),
                          .position = Upload(positions)};
    const TensorView table = Upload(pages).Reshape({1, num_pages});
    const auto cache = [&](int64_t page_rows) {
      const auto half = [&] {
        return Random(DType::kBF16, num_pages * kKvHeads * page_rows, kD)
            .Reshape({num_pages, kKvHeads, page_rows, kD});
      };
      return PagedKv{half(), half(), table};
    };
    StoreProjectionsArgs store{
        .tokens = tokens,
        .packed = Random(DType::kBF16, num_tokens, kColumns),
        .inv_freq = Random(DType::kF32, kD / 2),
        .gates_column = kHeads * kD + 3 * kKvHeads * 2 * kD,
        .num_streams = 3,
        .q = Random(DType::kBF16, num_tokens * kHeads, kD).Reshape({num_tokens, kHeads, kD}),
        .gate_logits =
            Random(DType::kF32, num_tokens * kHeads, 3).Reshape({num_tokens, kHeads, 3})};
    int64_t column = kHeads * kD;
    for (KvStream& stream : store.streams) {
      stream = {.k_column = column, .v_column = column + kKvHeads * kD, .kv = cache(kPageRows)};
      column += 2 * kKvHeads * kD;
    }
    Time("store projections", num_tokens, kColumns,
         num_tokens * (2 * kColumns * 2 + kHeads * 3 * (4 - 2)),
         [&] { StoreProjections(store, stream_); });
    const auto phi = [&] {
      const int64_t inputs = kShape.span_tokens * kD;
      return PhiWeights{
          .position = Random(DType::kF32, kKvHeads * kShape.span_tokens, kD)
                          .Reshape({kKvHeads, kShape.span_tokens, kD}),
          .fc1 = Random(DType::kBF16, kKvHeads * kUnits, inputs, 0.02F)
                     .Reshape({kKvHeads, kUnits, inputs}),
          .fc2 = Random(DType::kBF16, kKvHeads * kD, kUnits).Reshape({kKvHeads, kD, kUnits})};
    };
    CompressArgs compress{.shape = kShape,
                          .phi = PhiKind::kMlp,
                          .rope = CmpRope::kAfter,
                          .tokens = tokens,
                          .raw = store.streams[2].kv,
                          .rows = cache(kShape.rows_per_page()),
                          .phi_k = phi(),
                          .phi_v = phi(),
                          .inv_freq = store.inv_freq};
    const int64_t scratch_bytes = CompressRowsScratchBytes({.shape = kShape,
                                                            .phi = PhiKind::kMlp,
                                                            .num_tokens = num_tokens,
                                                            .num_seqs = 1,
                                                            .num_kv_heads = kKvHeads,
                                                            .d_k = kD,
                                                            .d_v = kD,
                                                            .num_hidden = kUnits},
                                                           stream_);
    if (scratch_bytes > 0) compress.scratch = {Memory(scratch_bytes), DType::kU8, {scratch_bytes}};
    const int64_t num_rows = kShape.NumRows(num_tokens);
    Time("compress rows, mlp", num_rows, kKvHeads * 2 * kD,
         2 * kKvHeads *
             (kUnits * kShape.span_tokens * kD * 2 + num_tokens * kD * 2 + num_rows * kD * 2),
         [&] { CompressRows(compress, stream_); });
  }

  void Sample(const char* name, const SamplingParams& params, int32_t num_top, int64_t num_rows) {
    buffers_.clear();
    const TensorView logits = Random(DType::kF32, num_rows, kVocab, 10);
    std::vector<SampleRow> rows(num_rows);
    for (int64_t i = 0; i < num_rows; ++i) {
      rows[i] = {.params = params, .position = i, .num_top_logprobs = num_top};
      rows[i].params.seed = static_cast<uint64_t>(i);
    }
    Buffer& on_device =
        *buffers_.emplace_back(std::make_unique<Buffer>(num_rows * sizeof(SampleRow)));
    on_device.Write(rows);
    const SampleArgs args{.logits = logits,
                          .rows = {static_cast<const SampleRow*>(on_device.get()), rows.size()},
                          .tokens = {Memory(num_rows * 4), DType::kI32, {num_rows}},
                          .logprobs = {Memory(num_rows * 4), DType::kF32, {num_rows}},
                          .top_tokens = {Memory(num_rows * kMaxTopLogprobs * 4),
                                         DType::kI32,
                                         {num_rows, kMaxTopLogprobs}},
                          .top_logprobs = {Memory(num_rows * kMaxTopLogprobs * 4),
                                           DType::kF32,
                                           {num_rows, kMaxTopLogprobs}},
                          .finite = {Memory(num_rows), DType::kU8, {num_rows}}};
    Time((std::string("sample, ") + name).c_str(), num_rows, kVocab, num_rows * kVocab * 4,
         [&] { SampleTokens(args, stream_); });
  }

 private:
  // bytes: read and written once.
  void Time(const char* op, int64_t num_rows, int64_t num_columns, int64_t bytes,
            const std::function<void()>& launch) {
    const double us = GraphUs(context_.stream(),
                              [&] {
                                for (int i = 0; i < kLaunches; ++i) launch();
                              }) /
                      kLaunches;
    const double bytes_per_us = static_cast<double>(bytes) / us;
    std::printf("%-24s %5ld x %6ld %9.1f us %7.0f GB/s %4.0f %% of read\n", op, num_rows,
                num_columns, us, bytes_per_us / 1e3, 100 * bytes_per_us / read_bytes_per_us_);
    std::fflush(stdout);
    results_.Add({{"op", op},
                  {"rows", num_rows},
                  {"columns", num_columns},
                  {"us", us},
                  {"gb_per_s", bytes_per_us / 1e3},
                  {"percent_of_read", 100 * bytes_per_us / read_bytes_per_us_}});
  }

  void* Memory(int64_t bytes) {
    return buffers_.emplace_back(std::make_unique<Buffer>(bytes))->get();
  }
  TensorView Random(DType dtype, int64_t rows, int64_t columns = 1, float scale = 1) {
    const int64_t num = rows * columns;
    void* const data = Memory(num * DTypeBytes(dtype));
    if (dtype == DType::kF32) {
      Fill<float>(data, num, scale, 1);
    } else {
      Fill<__nv_bfloat16>(data, num, scale, 1);
    }
    if (columns == 1) return {data, dtype, {rows}};
    return {data, dtype, {rows, columns}};
  }
  TensorView Upload(const std::vector<int32_t>& values) {
    const auto num = static_cast<int64_t>(values.size());
    Buffer& buffer = *buffers_.emplace_back(std::make_unique<Buffer>(num * 4));
    buffer.Write(values);
    return {buffer.get(), DType::kI32, {num}};
  }

  std::vector<std::unique_ptr<Buffer>> buffers_;  // of the case at hand
};

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  nsa::Results results(argc, argv);
  nsa::Bench bench(results);
  for (const int64_t num_tokens : {1, 24, 64, 2048, 8192}) {
    bench.Norms(num_tokens);
    bench.SwiGlus(num_tokens);
    bench.Embeddings(num_tokens);
  }
  for (const int64_t num_tokens : {64, 2048, 8192}) bench.Appends(num_tokens);
  for (const int64_t num_rows : {1, 24, 64}) {
    bench.Sample("greedy", {.temperature = 0}, -1, num_rows);
    bench.Sample("greedy, log-probabilities", {.temperature = 0}, 5, num_rows);
    bench.Sample("temperature", {}, -1, num_rows);
    bench.Sample("top_k 50", {.top_k = 50}, -1, num_rows);
    bench.Sample("top_p 0.9", {.top_p = 0.9F}, -1, num_rows);
    bench.Sample("min_p 0.1", {.min_p = 0.1F}, -1, num_rows);
  }
  results.Write(bench.read_bytes_per_us());
}
