#include "tests/engine/model_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/runtime/uploader.h"
#include "engine/step_memory.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr int kNanByte = 0xff;  // all ones is a NaN as f32, bf16 and f16

void FillWithNan(const KvCache::KvTensors& tensors, Uploader& uploader) {
  for (const TensorView& view : {tensors.k, tensors.v}) {
    const std::vector<uint8_t> nans(view.num_bytes(), kNanByte);
    uploader.Copy(nans.data(), view.raw(), view.num_bytes());
  }
}

void FillWithNan(const KvCache& cache, Device& device) {
  Uploader uploader(&device);
  const CacheSpec& spec = cache.spec();
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (size_t i = 0; i < spec.page_segments.size(); ++i) {
      FillWithNan(cache.PageTensors(layer, static_cast<int64_t>(i)), uploader);
    }
    for (size_t i = 0; i < spec.recent_segments.size(); ++i) {
      FillWithNan(cache.RecentTensors(layer, static_cast<int64_t>(i)), uploader);
    }
  }
  NSA_CHECK(uploader.Finish().ok());
}

// Cuts a chunk of a sequence into tiles, as TokenMap has them.
void AddTiles(int32_t sequence, int64_t position, int64_t num_tokens, Batch& batch) {
  for (int64_t done = 0; done < num_tokens;) {
    const int64_t room = kTileTokens - (position + done) % kTileTokens;
    const int64_t length = std::min(room, num_tokens - done);
    const int64_t tile[] = {sequence, batch.num_tokens() + done, length, position + done};
    for (int64_t value : tile) batch.tiles.push_back(static_cast<int32_t>(value));
    done += length;
  }
}

std::unique_ptr<Model> LoadOrDie(const std::string& folder, const RunnerOptions& options,
                                 Device* device) {
  const absl::StatusOr<MappedFile> config_file = MappedFile::Open(folder + "/config.json");
  NSA_CHECK(config_file.ok()) << config_file.status();
  absl::StatusOr<ModelConfig> config = ParseModelConfig(config_file->text());
  NSA_CHECK(config.ok()) << config.status();
  absl::StatusOr<Weights> weights = Weights::Open(folder);
  NSA_CHECK(weights.ok()) << weights.status();
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(
      *std::move(config),
      {.attention = options.attention, .cache_dtype = options.cache_dtype, .device = device},
      *weights);
  NSA_CHECK(model.ok()) << model.status();
  return *std::move(model);
}

}  // namespace

ModelRunner::ModelRunner(const std::string& folder, const RunnerOptions& options)
    : options_(options),
      device_(options.device != nullptr ? options.device : OpenHostDevice(options.num_threads, "")),
      model_(LoadOrDie(folder, options, device_.get())),
      num_done_(options.num_seqs) {
  const CacheSpec& spec = model_->attention().cache_spec();
  num_pages_per_seq_ = (options.max_seq_tokens + spec.page_tokens - 1) / spec.page_tokens;
  const int64_t num_pages = num_pages_per_seq_ * options.num_seqs;
  const int64_t num_tokens = options.max_chunk_tokens * options.num_seqs;
  if (spec.lookback_tokens > 0) {
    recent_columns_ =
        MaxPagesTouched(spec.lookback_tokens + options.max_chunk_tokens, spec.page_tokens);
  }
  cache_ =
      std::make_unique<KvCache>(spec, num_pages, recent_columns_ * options.num_seqs, device_.get());
  workspace_ = std::make_unique<Workspace>(model_->WorkspaceBytes({.num_tokens = num_tokens,
                                                                   .num_rows = num_tokens,
                                                                   .num_seqs = options.num_seqs,
                                                                   .max_pages = num_pages_per_seq_},
                                                                  device_->stream()),
                                           device_.get());
  FillWithNan(*cache_, *device_);
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

Batch ModelRunner::MakeBatch(const std::vector<Chunk>& chunks) {
  Batch batch{.num_seqs = options_.num_seqs, .max_pages = num_pages_per_seq_};
  for (const Chunk& chunk : chunks) {
    const int64_t position = num_done_[chunk.sequence];
    const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
    if (num_tokens == 1 && batch.tiles.empty()) {
      ++batch.num_decode_tokens;
    } else {
      AddTiles(chunk.sequence, position, num_tokens, batch);
    }
    for (int64_t i = 0; i < num_tokens; ++i) {
      batch.token_ids.push_back(chunk.tokens[i]);
      batch.token_sequence.push_back(chunk.sequence);
      batch.token_position.push_back(static_cast<int32_t>(position + i));
    }
    num_done_[chunk.sequence] += num_tokens;
  }
  batch.page_table = PageTable();
  batch.recent_columns = recent_columns_;
  batch.recent_table.resize(options_.num_seqs * recent_columns_);
  std::iota(batch.recent_table.rbegin(), batch.recent_table.rend(), 0);
  batch.logit_tokens.resize(batch.num_tokens());
  std::iota(batch.logit_tokens.begin(), batch.logit_tokens.end(), 0);
  batch.rows.resize(batch.num_tokens());
  return batch;
}

Logits ModelRunner::Step(const std::vector<Chunk>& chunks) {
  const Batch batch = MakeBatch(chunks);
  const int64_t num_tokens = batch.num_tokens(), vocab = model_->config().vocab_size;
  const StepShape shape = ShapeOf(batch);
  PinnedBuffer host_block(StepInputs::BytesOf(shape), device_.get());
  StepInputs(host_block.data(), shape).Fill(batch);
  const DeviceBuffer block(host_block.num_bytes(), device_.get());
  device_->Upload(host_block.data(), block.data(), host_block.num_bytes());
  const StepInputs inputs(block.data(), shape);
  const int64_t logit_bytes = num_tokens * vocab * DTypeBytes(DType::kF32);
  const DeviceBuffer logit_block(logit_bytes, device_.get());
  model_->Forward({.token_ids = inputs.token_ids,
                   .step = {.tokens = {.sequence = inputs.token_sequence,
                                       .position = inputs.token_position,
                                       .num_decode_tokens = shape.num_decode_tokens,
                                       .tiles = inputs.tiles},
                            .page_table = inputs.page_table,
                            .recent_table = inputs.recent_table,
                            .max_pages = shape.max_pages},
                   .logit_tokens = inputs.logit_tokens,
                   .logits = TensorView(logit_block.data(), DType::kF32, {num_tokens, vocab})},
                  *cache_, *workspace_, device_->stream());
  EXPECT_EQ(workspace_->used_bytes(), 0);
  PinnedBuffer host_logits(logit_bytes, device_.get());
  device_->Download(logit_block.data(), host_logits.data(), logit_bytes);
  device_->Mark(0);
  const absl::Status status = device_->Await(0);
  NSA_CHECK(status.ok()) << status;
  const auto* flat = reinterpret_cast<const float*>(host_logits.data());
  Logits logits;
  for (int64_t i = 0; i < num_tokens; ++i) {
    logits.emplace_back(flat + i * vocab, flat + (i + 1) * vocab);
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
