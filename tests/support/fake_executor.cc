#include "tests/support/fake_executor.h"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/constrained_output.h"
#include "engine/logit_editor.h"

namespace nsa {
namespace {

constexpr int64_t kWindowTokens = FakeExecutor::kLookbackTokens + 1;
constexpr int32_t kNeverStored = -7;

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  return hash ^ (hash >> 29);
}

// Does not depend on the order of the edits.
uint64_t HashOf(absl::Span<const LogitEdit> edits) {
  uint64_t sum = 0;
  for (const LogitEdit& edit : edits) {
    uint64_t hash = Mix(static_cast<uint64_t>(edit.token), std::bit_cast<uint32_t>(edit.factor));
    sum += Mix(hash, std::bit_cast<uint32_t>(edit.shift));
  }
  return sum;
}

SampledToken Sample(absl::Span<const int32_t> prefix, absl::Span<const int32_t> window,
                    absl::Span<const LogitEdit> edits, const SampleRow& row, int64_t vocab_size) {
  uint64_t hash = Mix(row.params.seed, static_cast<uint64_t>(row.position));
  hash = Mix(hash, static_cast<uint64_t>(row.params.top_k));
  for (int32_t token : prefix) hash = Mix(hash, static_cast<uint64_t>(token));
  for (int32_t token : window) hash = Mix(hash, static_cast<uint64_t>(token));
  if (!edits.empty()) hash = Mix(hash, HashOf(edits));
  SampledToken sampled;
  sampled.token = row.scored_token >= 0
                      ? row.scored_token
                      : static_cast<int32_t>(hash % static_cast<uint64_t>(vocab_size));
  if (row.num_top_logprobs >= 0) sampled.logprob = -static_cast<float>(hash % 1000) / 100;
  for (int32_t rank = 0; rank < row.num_top_logprobs; ++rank) {
    sampled.top_logprobs.push_back({.token = rank, .logprob = static_cast<float>(-rank)});
  }
  return sampled;
}

// Tokens of one sequence: they lie together, in order, and its pages cover them exactly.
std::string FindSequenceViolation(const Batch& batch, const ExecutorLimits& limits, int64_t seq,
                                  int64_t begin, int64_t end) {
  const int64_t num_tokens = end - begin;
  if (num_tokens < 1 || num_tokens > limits.max_chunk_tokens) {
    return absl::StrCat("sequence ", seq, " has a chunk of ", num_tokens, " tokens");
  }
  for (int64_t i = begin; i < end; ++i) {
    if (batch.token_position[i] != batch.token_position[begin] + i - begin) {
      return absl::StrCat("token ", i, " is not at the position after the token before it");
    }
    if (batch.token_ids[i] < 0 || batch.token_ids[i] >= limits.vocab_size) {
      return absl::StrCat("token ", i, " has id ", batch.token_ids[i]);
    }
  }
  const int64_t num_pages = batch.token_position[end - 1] / limits.page_tokens + 1;
  if (num_pages > batch.max_pages) return absl::StrCat("sequence ", seq, " lacks pages");
  for (int64_t p = 0; p < batch.max_pages; ++p) {
    const int32_t page = batch.page_table[seq * batch.max_pages + p];
    const bool is_page = page >= 0 && page < limits.num_pages;
    if (p < num_pages ? !is_page : page != -1) {
      return absl::StrCat("sequence ", seq, " has page ", page, " at ", p, " of ", num_pages);
    }
  }
  return "";
}

std::string FindRowViolation(const Batch& batch) {
  if (batch.rows.size() != batch.logit_tokens.size()) return "rows and logit_tokens differ";
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    const int32_t token = batch.logit_tokens[r];
    if (token < 0 || token >= batch.num_tokens()) return absl::StrCat("row ", r, " has no token");
    if (r > 0 && token <= batch.logit_tokens[r - 1]) return "rows are not in the tokens' order";
    const bool is_scored = batch.rows[r].scored_token >= 0;
    if (!is_scored && token + 1 < batch.num_tokens() &&
        batch.token_sequence[token + 1] == batch.token_sequence[token]) {
      return absl::StrCat("row ", r, " is not of the last token of a sequence");
    }
    if (batch.rows[r].position != batch.token_position[token] + 1) {
      return absl::StrCat("row ", r, " samples position ", batch.rows[r].position);
    }
  }
  return "";
}

// What a sequence writes in this step is in nobody else's table.
std::string FindSharing(const Batch& batch, const ExecutorLimits& limits) {
  std::map<int32_t, int> num_uses, num_recent_uses;
  for (int32_t page : batch.page_table) ++num_uses[page];
  for (int32_t page : batch.recent_table) {
    if (page < -1 || page >= limits.num_recent_pages) return absl::StrCat("recent page ", page);
    ++num_recent_uses[page];
  }
  for (int64_t i = 0; i < batch.num_tokens(); ++i) {
    const int64_t seq = batch.token_sequence[i];
    const int64_t logical = batch.token_position[i] / limits.page_tokens;
    const int32_t page = batch.page_table[seq * batch.max_pages + logical];
    if (num_uses[page] > 1) return absl::StrCat("page ", page, " is written and shared");
    if (batch.recent_columns == 0) continue;
    const int64_t column = logical % batch.recent_columns;
    const int32_t recent = batch.recent_table[seq * batch.recent_columns + column];
    if (num_recent_uses[recent] > 1) {
      return absl::StrCat("recent page ", recent, " is written and shared");
    }
  }
  return "";
}

// Copies are between different pages of the pools.
std::string FindCopyViolation(const std::vector<PageCopy>& copies, int64_t num_pages) {
  for (const auto& [from, to] : copies) {
    if (from >= 0 && from < num_pages && to >= 0 && to < num_pages && from != to) continue;
    return absl::StrCat("a copy of page ", from, " to page ", to, " of ", num_pages);
  }
  return "";
}

absl::Span<const LogitEdit> EditsOf(const RowEdits& edits, int32_t edited_row) {
  if (edited_row < 0) return {};
  const int32_t begin = edited_row == 0 ? 0 : edits.edit_end[edited_row - 1];
  return absl::MakeConstSpan(edits.edits).subspan(begin, edits.edit_end[edited_row] - begin);
}

// The edits are those of the batch's edited rows, in their order.
std::string FindEditViolation(const Batch& batch, const RowEdits& edits) {
  const auto num_rows = static_cast<size_t>(batch.num_edited_rows);
  if (edits.rows.size() != num_rows || edits.edit_end.size() != num_rows ||
      edits.mask_of.size() != num_rows) {
    return absl::StrCat("edits of ", edits.rows.size(), " rows instead of ", num_rows);
  }
  for (size_t e = 0; e < num_rows; ++e) {
    const int32_t row = edits.rows[e];
    if (row < 0 || row >= batch.num_rows() ||
        batch.rows[row].edited_row != static_cast<int32_t>(e)) {
      return absl::StrCat("edited row ", e, " is not row ", row);
    }
    if (edits.mask_of[e] < -1 || edits.mask_of[e] >= std::ssize(edits.masks)) {
      return absl::StrCat("there is no mask ", edits.mask_of[e]);
    }
  }
  return "";
}

std::vector<int32_t> MaskOf(ConstrainedOutput& output, int64_t vocab_size) {
  std::vector<int32_t> words(NumMaskWords(vocab_size));
  output.ExpectMask();
  output.ComputeMask();
  output.CopyTo(words);
  return words;
}

}  // namespace

std::string FindViolation(const Batch& batch, const ExecutorLimits& limits) {
  const int64_t num_tokens = batch.num_tokens();
  if (num_tokens < 1 || num_tokens > limits.max_batched_tokens) {
    return absl::StrCat(num_tokens, " tokens");
  }
  if (static_cast<int64_t>(batch.token_sequence.size()) != num_tokens ||
      static_cast<int64_t>(batch.token_position.size()) != num_tokens ||
      static_cast<int64_t>(batch.recent_table.size()) != batch.num_seqs * batch.recent_columns ||
      static_cast<int64_t>(batch.page_table.size()) != batch.num_seqs * batch.max_pages) {
    return "arrays of different lengths";
  }
  int64_t begin = 0;
  for (int64_t seq = 0; seq < batch.num_seqs; ++seq) {
    int64_t end = begin;
    while (end < num_tokens && batch.token_sequence[end] == seq) ++end;
    std::string violation = FindSequenceViolation(batch, limits, seq, begin, end);
    if (!violation.empty()) return violation;
    begin = end;
  }
  if (begin != num_tokens) return "tokens that belong to no sequence";
  for (std::string violation :
       {FindRowViolation(batch), FindCopyViolation(batch.page_copies, limits.num_pages),
        FindCopyViolation(batch.recent_copies, limits.num_recent_pages)}) {
    if (!violation.empty()) return violation;
  }
  return FindSharing(batch, limits);
}

SampledToken FakeSample(absl::Span<const int32_t> prefix, absl::Span<const LogitEdit> edits,
                        const SampleRow& row, int64_t vocab_size) {
  const size_t num_window = std::min<size_t>(prefix.size(), kWindowTokens);
  return Sample(prefix, prefix.last(num_window), edits, row, vocab_size);
}

int32_t FakeChoice(int32_t token, absl::Span<const int32_t> mask) {
  std::vector<int32_t> allowed;
  for (int32_t id = 0; id < static_cast<int32_t>(mask.size()) * 32; ++id) {
    if ((static_cast<uint32_t>(mask[id / 32]) >> (id % 32) & 1) != 0) allowed.push_back(id);
  }
  return allowed.empty() ? token : allowed[static_cast<size_t>(token) % allowed.size()];
}

std::vector<int32_t> FakeContinuation(const Request& request, int64_t vocab_size) {
  std::vector<int32_t> tokens = request.prompt;
  LogitRules rules = request.rules;
  std::optional<ConstrainedOutput> output;
  if (request.constraint != nullptr) {
    output.emplace(request.constraint, request.stop_token_ids, std::exchange(rules.min_tokens, 0));
  }
  LogitEditor editor(rules, request.stop_token_ids, request.prompt);
  for (int64_t i = 0; i < request.max_tokens; ++i) {
    const SampleRow row{.params = request.sampling,
                        .position = static_cast<int64_t>(tokens.size())};
    std::vector<LogitEdit> edits;
    editor.WriteEdits(edits);
    int32_t token = FakeSample(tokens, edits, row, vocab_size).token;
    if (output.has_value()) token = FakeChoice(token, MaskOf(*output, vocab_size));
    tokens.push_back(token);
    editor.Append(token);
    if (output.has_value() && output->Advance(token) != ConstrainedOutput::Progress::kOpen) break;
    const auto& stops = request.stop_token_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;
  }
  return {tokens.begin() + static_cast<int64_t>(request.prompt.size()), tokens.end()};
}

FakeExecutor::FakeExecutor(const ExecutorLimits& limits, int max_steps_ahead)
    : limits_(limits),
      max_steps_ahead_(max_steps_ahead),
      pages_(limits.num_pages * limits.page_tokens, kNeverStored),
      recent_pages_(limits.num_recent_pages * limits.page_tokens, kNeverStored) {}

void FakeExecutor::Violate(const std::string& what) {
  if (violation_.empty()) violation_ = what;
}

void FakeExecutor::Launch(const Batch& batch) {
  if (static_cast<int>(launched_.size()) > max_steps_ahead_) Violate("too many steps in flight");
  if (!launched_.empty() && launched_.back().awaits_edits) Violate("a step before awaits edits");
  launched_.push_back({.batch = batch, .awaits_edits = batch.num_edited_rows > 0});
  ++num_in_flight_;
}

void FakeExecutor::LaunchSampling(const RowEdits& edits) {
  if (launched_.empty() || !launched_.back().awaits_edits) return Violate("no step awaits edits");
  Step& step = launched_.back();
  Violate(FindEditViolation(step.batch, edits));
  step.awaits_edits = false;
  step.edits = edits;
  for (TokenMask* mask : edits.masks) {
    step.masks.emplace_back(NumMaskWords(limits_.vocab_size));
    mask->CopyTo(step.masks.back());
  }
}

absl::StatusOr<std::vector<SampledToken>> FakeExecutor::Collect() {
  if (launched_.empty()) return absl::InternalError("no step is in flight");
  const Step step = std::move(launched_.front());
  launched_.pop_front();
  if (step.awaits_edits) Violate("a step is collected before it is sampled");
  absl::StatusOr<std::vector<SampledToken>> sampled = Run(step);
  --num_in_flight_;
  return sampled;
}

absl::StatusOr<std::vector<SampledToken>> FakeExecutor::Run(const Step& step) {
  const Batch batch = Resolve(step.batch);
  last_tokens_.assign(batch.num_rows(), 0);  // of a step that fails: anything
  Violate(FindViolation(batch, limits_));
  if (!violation_.empty()) return absl::InternalError(violation_);
  if (is_lost_) return absl::InternalError("the device is lost");
  CopyPages(batch);
  Store(batch);
  if (on_step) {
    if (absl::Status status = on_step(batch); !status.ok()) {
      Spoil(batch);
      return status;
    }
  }
  std::vector<SampledToken> sampled;
  for (int64_t r = 0; r < batch.num_rows(); ++r) {
    sampled.push_back(SampleRowOf(step, batch, r));
    if (is_finite) sampled.back().finite = is_finite(batch.rows[r]);
    last_tokens_[r] = sampled.back().token;
  }
  // Of a traced row, the position of its token.
  for (const int32_t row : batch.traced_rows) {
    sampled[row].blocks = {batch.token_position[batch.logit_tokens[row]]};
  }
  return sampled;
}

SampledToken FakeExecutor::SampleRowOf(const Step& step, const Batch& batch, int64_t row) const {
  const int64_t token_idx = batch.logit_tokens[row];
  const int32_t edited_row = batch.rows[row].edited_row;
  SampledToken sampled =
      Sample(ReadPages(batch, token_idx), ReadRecent(batch, token_idx),
             EditsOf(step.edits, edited_row), batch.rows[row], limits_.vocab_size);
  const int32_t mask = edited_row < 0 ? -1 : step.edits.mask_of[edited_row];
  if (mask >= 0) sampled.token = FakeChoice(sampled.token, step.masks[mask]);
  return sampled;
}

// The batch with the tokens of the step before in place of their rows.
Batch FakeExecutor::Resolve(const Batch& batch) {
  Batch resolved = batch;
  for (int32_t& token : resolved.token_ids) {
    const size_t row = static_cast<size_t>(-1 - static_cast<int64_t>(token));
    if (token >= 0) continue;
    if (max_steps_ahead_ == 0 || row >= last_tokens_.size()) {
      Violate(absl::StrCat("there is no row ", row));
      continue;
    }
    token = last_tokens_[row];
  }
  return resolved;
}

KvTraffic FakeExecutor::DecodeTraffic(int64_t num_tokens) const {
  return {.read_bytes = 3 * std::min<int64_t>(num_tokens, 8),
          .dense_bytes = 3 * num_tokens,
          .chosen_blocks = 2,
          .visible_blocks = num_tokens};
}

void FakeExecutor::CopyPages(const Batch& batch) {
  const auto copy = [this](const std::vector<PageCopy>& copies, std::vector<int32_t>& pages) {
    for (const auto& [from, to] : copies) {
      std::copy_n(pages.begin() + from * limits_.page_tokens, limits_.page_tokens,
                  pages.begin() + to * limits_.page_tokens);
    }
  };
  copy(batch.page_copies, pages_);
  copy(batch.recent_copies, recent_pages_);
}

void FakeExecutor::Store(const Batch& batch) {
  for (int64_t i = 0; i < batch.num_tokens(); ++i) {
    const int64_t seq = batch.token_sequence[i];
    const int64_t position = batch.token_position[i];
    const int64_t page = batch.page_table[seq * batch.max_pages + position / limits_.page_tokens];
    pages_[page * limits_.page_tokens + position % limits_.page_tokens] = batch.token_ids[i];
    if (limits_.lookback_tokens > 0)
      recent_pages_[RecentRow(batch, seq, position)] = batch.token_ids[i];
  }
}

void FakeExecutor::Spoil(const Batch& batch) {
  const auto spoil = [this](const std::vector<PageCopy>& copies, std::vector<int32_t>& pages) {
    for (const auto& [from, to] : copies) {
      std::fill_n(pages.begin() + to * limits_.page_tokens, limits_.page_tokens, kNeverStored);
    }
  };
  spoil(batch.page_copies, pages_);
  spoil(batch.recent_copies, recent_pages_);
  Batch spoilt = batch;
  spoilt.token_ids.assign(batch.token_ids.size(), kNeverStored);
  Store(spoilt);
}

std::vector<int32_t> FakeExecutor::ReadPages(const Batch& batch, int64_t token_idx) const {
  const int64_t num_tokens = batch.token_position[token_idx] + 1;
  const int32_t* table =
      batch.page_table.data() + batch.token_sequence[token_idx] * batch.max_pages;
  std::vector<int32_t> tokens;
  tokens.reserve(num_tokens);
  for (int64_t begin = 0; begin < num_tokens; begin += limits_.page_tokens) {
    const auto page = pages_.begin() + table[begin / limits_.page_tokens] * limits_.page_tokens;
    const int64_t num_rows = std::min(limits_.page_tokens, num_tokens - begin);
    tokens.insert(tokens.end(), page, page + num_rows);
  }
  return tokens;
}

int64_t FakeExecutor::RecentRow(const Batch& batch, int64_t seq, int64_t position) const {
  const int64_t column = position / limits_.page_tokens % batch.recent_columns;
  const int64_t page = batch.recent_table[seq * batch.recent_columns + column];
  return page * limits_.page_tokens + position % limits_.page_tokens;
}

// The window of a token: its last tokens as the recent pages have them, or as the pages do.
std::vector<int32_t> FakeExecutor::ReadRecent(const Batch& batch, int64_t token_idx) const {
  const int64_t last = batch.token_position[token_idx];
  const int64_t first = std::max<int64_t>(0, last - kWindowTokens + 1);
  if (limits_.lookback_tokens == 0) {
    const std::vector<int32_t> all = ReadPages(batch, token_idx);
    return {all.begin() + first, all.end()};
  }
  std::vector<int32_t> tokens;
  for (int64_t position = first; position <= last; ++position) {
    tokens.push_back(recent_pages_[RecentRow(batch, batch.token_sequence[token_idx], position)]);
  }
  return tokens;
}

}  // namespace nsa
