#include "engine/text/hf/bpe_model.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/status.h"

namespace nsa::hf {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

// Bytes that no valid UTF-8 contains need no token.
bool OccursInUtf8(int byte) { return byte != 0xC0 && byte != 0xC1 && byte <= 0xF4; }

// Heap order: the best candidate has the lowest rank, then the lowest position.
constexpr auto kIsWorse = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
};

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Make(BpeSpec spec) {
  BpeModel model;
  model.token_of_byte_.fill(-1);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const BpeSpec::Token& token = spec.tokens[id];
    if (!token.is_encodable || token.bytes.size() != 1) continue;
    model.token_of_byte_[static_cast<uint8_t>(token.bytes[0])] = static_cast<int32_t>(id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (model.token_of_byte_[byte] >= 0 || !OccursInUtf8(byte)) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("the vocabulary has no token for the byte 0x%02X", byte));
  }
  model.AddMerges(spec);
  model.AddWholeWords(spec);
  return model;
}

void BpeModel::AddMerges(const BpeSpec& spec) {
  merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const BpeMerge& merge = spec.merges[rank];
    // Whatever the file says, no text of a user may become a control token.
    if (!spec.tokens[merge.result].is_encodable) continue;
    merges_[PairKey(merge.left, merge.right)] = {static_cast<int32_t>(rank), merge.result};
  }
}

void BpeModel::AddWholeWords(const BpeSpec& spec) {
  Scratch scratch;
  std::vector<int32_t> tokens;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const BpeSpec::Token& token = spec.tokens[id];
    if (!token.is_encodable || token.bytes.empty()) continue;
    tokens.clear();
    if (!spec.ignore_merges) Merged(token.bytes, &scratch, &tokens);
    const bool is_reached = tokens.size() == 1 && tokens[0] == static_cast<int32_t>(id);
    if (spec.ignore_merges || is_reached) whole_words_[token.bytes] = static_cast<int32_t>(id);
  }
}

void BpeModel::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* tokens) const {
  const auto whole = whole_words_.find(absl::string_view(word.data(), word.size()));
  if (whole != whole_words_.end()) {
    tokens->push_back(whole->second);
  } else {
    Merged(word, scratch, tokens);
  }
}

void BpeModel::Merged(std::string_view word, Scratch* scratch, std::vector<int32_t>* tokens) const {
  auto& symbols = scratch->symbols_;
  auto& candidates = scratch->candidates_;
  symbols.clear();
  candidates.clear();
  const auto num_bytes = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < num_bytes; ++i) {
    const int32_t next = i + 1 < num_bytes ? i + 1 : -1;
    symbols.push_back({token_of_byte_[static_cast<uint8_t>(word[i])], i - 1, next});
  }
  for (int32_t i = 0; i < num_bytes; ++i) Consider(i, scratch);
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), kIsWorse);
    const Scratch::Candidate best = candidates.back();
    candidates.pop_back();
    Apply(best, scratch);
  }
  for (int32_t i = 0; i >= 0 && i < num_bytes; i = symbols[i].next) {
    tokens->push_back(symbols[i].token);
  }
}

// Queues the merge of the symbol at `position` with the next one, if there is one.
void BpeModel::Consider(int32_t position, Scratch* scratch) const {
  const auto& symbol = scratch->symbols_[position];
  if (symbol.next < 0) return;
  const auto merge = merges_.find(PairKey(symbol.token, scratch->symbols_[symbol.next].token));
  if (merge == merges_.end()) return;
  scratch->candidates_.push_back({merge->second.rank, position, merge->second.result});
  std::push_heap(scratch->candidates_.begin(), scratch->candidates_.end(), kIsWorse);
}

void BpeModel::Apply(const Scratch::Candidate& candidate, Scratch* scratch) const {
  auto& symbols = scratch->symbols_;
  auto& left = symbols[candidate.position];
  if (left.token < 0 || left.next < 0) return;
  auto& right = symbols[left.next];
  // A neighbour may have changed since the pair was queued.
  const auto merge = merges_.find(PairKey(left.token, right.token));
  if (merge == merges_.end() || merge->second.result != candidate.result) return;
  left.token = candidate.result;
  left.next = right.next;
  right.token = -1;
  if (right.next >= 0) symbols[right.next].previous = candidate.position;
  if (left.previous >= 0) Consider(left.previous, scratch);
  Consider(candidate.position, scratch);
}

}  // namespace nsa::hf
