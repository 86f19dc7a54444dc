#include "tests/engine/model_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr int kNanByte = 0xff;  // all ones is a NaN as f32 and as bf16

void FillWithNan(const TensorView& view) { std::memset(view.raw(), kNanByte, view.num_bytes()); }

void FillWithNan(const KvCache& cache) {
  const CacheSpec& spec = cache.spec();
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (size_t i = 0; i < spec.page_segments.size(); ++i) {
      FillWithNan(cache.PageTensors(layer, static_cast<int64_t>(i)).k);
      FillWithNan(cache.PageTensors(layer, static_cast<int64_t>(i)).v);
    }
    for (size_t i = 0; i < spec.slot_segments.size(); ++i) {
      FillWithNan(cache.SlotTensors(layer, static_cast<int64_t>(i)).k);
      FillWithNan(cache.SlotTensors(layer, static_cast<int64_t>(i)).v);
    }
  }
}

std::unique_ptr<Model> LoadOrDie(const std::string& folder, const RunnerOptions& options) {
  const absl::StatusOr<MappedFile> config_file = MappedFile::Open(folder + "/config.json");
  NSA_CHECK(config_file.ok()) << config_file.status();
  absl::StatusOr<ModelConfig> config = ParseModelConfig(config_file->text());
  NSA_CHECK(config.ok()) << config.status();
  absl::StatusOr<Weights> weights = Weights::Open(folder);
  NSA_CHECK(weights.ok()) << weights.status();
  absl::StatusOr<std::unique_ptr<Model>> model =
      MakeModel(*std::move(config),
                {.attention = options.attention,
                 .cache_dtype = options.cache_dtype,
                 .max_chunk_tokens = options.max_chunk_tokens},
                *weights);
  NSA_CHECK(model.ok()) << model.status();
  return *std::move(model);
}

TensorView View(std::vector<int32_t>& values) {
  return {values.data(), DType::kI32, {static_cast<int64_t>(values.size())}};
}

}  // namespace

ModelRunner::ModelRunner(const std::string& folder, const RunnerOptions& options)
    : options_(options),
      model_(LoadOrDie(folder, options)),
      threads_(options.num_threads),
      num_done_(options.num_seqs) {
  const CacheSpec& spec = model_->attention().cache_spec();
  num_pages_per_seq_ = (options.max_seq_tokens + spec.page_tokens - 1) / spec.page_tokens;
  const int64_t num_pages = num_pages_per_seq_ * options.num_seqs;
  const int64_t num_tokens = options.max_chunk_tokens * options.num_seqs;
  cache_ = std::make_unique<KvCache>(spec, num_pages, options.num_seqs);
  workspace_ = std::make_unique<Workspace>(
      model_->WorkspaceBytes({.num_tokens = num_tokens,
                              .num_rows = num_tokens,
                              .num_seqs = options.num_seqs,
                              .max_pages = num_pages_per_seq_},
                             {.device = DeviceType::kCpu, .threads = &threads_}));
  FillWithNan(*cache_);
}

// Neighbouring pages of a sequence lie apart, and those of different sequences between one another.
std::vector<int32_t> ModelRunner::PageTable() const {
  const int64_t num_pages = num_pages_per_seq_ * options_.num_seqs;
  std::vector<int32_t> table(num_pages);
  for (int64_t i = 0; i < num_pages; ++i) {
    const int64_t sequence = i / num_pages_per_seq_, page = i % num_pages_per_seq_;
    table[i] = static_cast<int32_t>(num_pages - 1 - (page * options_.num_seqs + sequence));
  }
  return table;
}

Logits ModelRunner::Step(const std::vector<Chunk>& chunks) {
  std::vector<int32_t> ids, sequences, positions;
  for (const Chunk& chunk : chunks) {
    for (int32_t token : chunk.tokens) {
      ids.push_back(token);
      sequences.push_back(chunk.sequence);
      positions.push_back(static_cast<int32_t>(num_done_[chunk.sequence]++));
    }
  }
  const int64_t num_tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> table = PageTable(), slots(options_.num_seqs), all(num_tokens);
  std::iota(all.begin(), all.end(), 0);
  std::iota(slots.rbegin(), slots.rend(), 0);
  const int64_t vocab = model_->config().vocab_size;
  std::vector<float> flat(num_tokens * vocab);
  model_->Forward(
      {.token_ids = View(ids),
       .step = {.tokens = {.sequence = View(sequences), .position = View(positions)},
                .page_table = View(table).Reshape({options_.num_seqs, num_pages_per_seq_}),
                .slot_table = View(slots).Reshape({options_.num_seqs, 1}),
                .max_pages = num_pages_per_seq_},
       .logit_tokens = View(all),
       .logits = TensorView(flat.data(), DType::kF32, {num_tokens, vocab})},
      *cache_, *workspace_, {.device = DeviceType::kCpu, .threads = &threads_});
  EXPECT_EQ(workspace_->used_bytes(), 0);
  Logits logits;
  for (int64_t i = 0; i < num_tokens; ++i) {
    logits.emplace_back(flat.begin() + i * vocab, flat.begin() + (i + 1) * vocab);
  }
  return logits;
}

Logits ModelRunner::Feed(int32_t sequence, std::span<const int32_t> tokens,
                         const std::vector<int64_t>& chunk_tokens) {
  Logits logits;
  for (size_t start = 0, i = 0; start < tokens.size(); ++i) {
    const size_t length =
        std::min<size_t>(chunk_tokens[i % chunk_tokens.size()], tokens.size() - start);
    Logits step = Step({{sequence, tokens.subspan(start, length)}});
    std::move(step.begin(), step.end(), std::back_inserter(logits));
    start += length;
  }
  return logits;
}

}  // namespace nsa
