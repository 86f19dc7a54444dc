#include "engine/batch_builder.h"

#include <algorithm>

namespace nsa {

BatchBuilder::BatchBuilder(const ExecutorLimits& limits) {
  batch_.recent_columns = limits.recent_columns();
}

const Batch& BatchBuilder::Build(const StepPlan& plan) {
  batch_.num_seqs = static_cast<int64_t>(plan.chunks.size());
  batch_.max_pages = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    batch_.max_pages =
        std::max(batch_.max_pages, static_cast<int64_t>(chunk.sequence->pages.size()));
  }
  batch_.page_copies = plan.page_copies;
  batch_.recent_copies = plan.recent_copies;
  batch_.token_ids.clear();
  batch_.token_sequence.clear();
  batch_.token_position.clear();
  batch_.page_table.clear();
  batch_.recent_table.clear();
  batch_.num_decode_tokens = 0;
  batch_.tiles.clear();
  batch_.logit_tokens.clear();
  batch_.rows.clear();
  batch_.traced_rows.clear();
  batch_.num_edited_rows = 0;
  int32_t sequence_idx = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    AddTiles(chunk, sequence_idx);
    AddTokens(chunk, sequence_idx);
    AddPages(*chunk.sequence);
    AddRecentPages(*chunk.sequence);
    AddScoredRows(chunk);
    if (chunk.samples) AddSampledRow(chunk);
    ++sequence_idx;
  }
  return batch_;
}

void BatchBuilder::AddTokens(const ScheduledChunk& chunk, int32_t sequence_idx) {
  const Sequence& sequence = *chunk.sequence;
  for (int64_t i = 0; i < chunk.num_tokens; ++i) {
    const int64_t position = sequence.num_cached_tokens + i;
    const bool is_known = position < sequence.num_tokens();
    batch_.token_ids.push_back(is_known ? sequence.tokens[position]
                                        : Batch::TokenOfRow(sequence.pending_row));
    batch_.token_sequence.push_back(sequence_idx);
    batch_.token_position.push_back(static_cast<int32_t>(position));
  }
}

// Before AddTokens. Leading chunks of one token are decode tokens, all others are cut into tiles.
void BatchBuilder::AddTiles(const ScheduledChunk& chunk, int32_t sequence_idx) {
  int64_t token = batch_.num_tokens();
  if (chunk.num_tokens == 1 && batch_.num_decode_tokens == token) {
    ++batch_.num_decode_tokens;
    return;
  }
  int64_t position = chunk.sequence->num_cached_tokens;
  const int64_t end = position + chunk.num_tokens;
  while (position < end) {
    const int64_t tile_end = std::min(end, (position / kTileTokens + 1) * kTileTokens);
    for (int64_t value : {int64_t{sequence_idx}, token, tile_end - position, position}) {
      batch_.tiles.push_back(static_cast<int32_t>(value));
    }
    token += tile_end - position;
    position = tile_end;
  }
}

void BatchBuilder::AddPages(const Sequence& sequence) {
  std::vector<int32_t>& table = batch_.page_table;
  const size_t row_end = table.size() + batch_.max_pages;
  table.insert(table.end(), sequence.pages.begin(), sequence.pages.end());
  table.resize(row_end, -1);
}

void BatchBuilder::AddRecentPages(const Sequence& sequence) {
  std::vector<int32_t>& table = batch_.recent_table;
  const size_t row = table.size();
  table.resize(row + batch_.recent_columns, -1);
  int64_t logical = sequence.first_recent_page;
  for (PageId page : sequence.recent_pages) table[row + logical++ % batch_.recent_columns] = page;
}

// After AddTokens, as AddSampledRow.
void BatchBuilder::AddScoredRows(const ScheduledChunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  const int64_t first_token = batch_.num_tokens() - chunk.num_tokens;
  for (int64_t i = 0; i < chunk.num_scored; ++i) {
    const int64_t position = chunk.first_scored + i;
    const int64_t token = first_token + position - 1 - sequence.num_cached_tokens;
    batch_.logit_tokens.push_back(static_cast<int32_t>(token));
    batch_.rows.push_back({.position = position,
                           .num_top_logprobs = std::max(sequence.request.num_top_logprobs, 0),
                           .scored_token = sequence.tokens[position]});
  }
}

void BatchBuilder::AddSampledRow(const ScheduledChunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  if (sequence.request.traces_blocks) {
    batch_.traced_rows.push_back(static_cast<int32_t>(batch_.num_rows()));
  }
  batch_.logit_tokens.push_back(static_cast<int32_t>(batch_.num_tokens() - 1));
  batch_.rows.push_back({.params = sequence.request.sampling,
                         .position = sequence.num_cached_tokens + chunk.num_tokens,
                         .num_top_logprobs = sequence.request.num_top_logprobs});
  if (!sequence.edits_logits()) return;
  batch_.rows.back().edited_row = static_cast<int32_t>(batch_.num_edited_rows++);
}

const RowEdits& BatchBuilder::BuildEdits(const StepPlan& plan) {
  edits_.rows.clear();
  edits_.edit_end.clear();
  edits_.mask_of.clear();
  edits_.edits.clear();
  edits_.masks.clear();
  int64_t row = -1;
  for (const ScheduledChunk& chunk : plan.chunks) {
    row += chunk.num_scored + (chunk.samples ? 1 : 0);
    if (!chunk.samples || batch_.rows[row].edited_row < 0) continue;
    edits_.rows.push_back(static_cast<int32_t>(row));
    edits_.mask_of.push_back(-1);
    if (chunk.sequence != nullptr) AddEdits(*chunk.sequence);
    edits_.edit_end.push_back(static_cast<int32_t>(edits_.edits.size()));
  }
  return edits_;
}

// To the last edited row.
void BatchBuilder::AddEdits(const Sequence& sequence) {
  if (sequence.logit_editor.has_value()) sequence.logit_editor->WriteEdits(edits_.edits);
  if (sequence.constrained_output == nullptr) return;
  edits_.mask_of.back() = static_cast<int32_t>(edits_.masks.size());
  edits_.masks.push_back(sequence.constrained_output.get());
}

}  // namespace nsa
