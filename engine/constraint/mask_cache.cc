#include "engine/constraint/mask_cache.h"

#include <algorithm>

#include "base/check.h"
#include "engine/constraint/code_points.h"

namespace nsa::constraint {
namespace {

// A run whose code points lead to more states than this is followed token by token instead.
constexpr size_t kMaxRunStates = 16;

CodePointSet TextCodePoints() {
  std::vector<CodePointRange> ranges;
  for (uint32_t c = 0; c <= 0x2029; ++c) {
    if (TokenTable::IsText(c)) ranges.push_back({c, c});
  }
  ranges.push_back({0x202A, kMaxCodePoint});
  return MakeSet(std::move(ranges));
}

void Insert(int32_t value, absl::InlinedVector<int32_t, 4>* values) {
  if (std::find(values->begin(), values->end(), value) == values->end()) values->push_back(value);
}

}  // namespace

MaskCache::MaskCache(Automaton* automaton, const TokenTable* tokens, int64_t max_bytes)
    : automaton_(automaton),
      tokens_(tokens),
      max_bytes_(max_bytes),
      path_(tokens->trie().max_depth + 1) {
  for (const ByteSequence& sequence : Utf8Sequences(TextCodePoints())) {
    std::vector<ByteClasses>& places = text_sequences_.emplace_back();
    for (const ByteRange& range : sequence) {
      ByteClasses& classes = places.emplace_back();
      for (int byte = range.low; byte <= range.high; ++byte) {
        const int32_t byte_class = automaton->grammar().byte_class(static_cast<uint8_t>(byte));
        if (classes.empty() || classes.back() != byte_class) classes.push_back(byte_class);
      }
    }
  }
}

bool MaskCache::Fill(int32_t state, std::span<uint32_t> words) {
  NSA_CHECK_LE(tokens_->num_mask_words(), static_cast<int64_t>(words.size()));
  const Mask* mask = MaskOf(state);
  if (mask == nullptr) return false;
  const std::span<const uint32_t> base =
      mask->words.empty() ? tokens_->text_mask(mask->num_text_code_points) : mask->words;
  const auto end = std::copy(base.begin(), base.end(), words.begin());
  std::fill(end, words.end(), 0);
  for (const int32_t token : mask->tokens) words[token / 32] |= 1U << (token % 32);
  if (automaton_->is_accepting(state)) {
    for (const int32_t token : tokens_->eos_tokens()) words[token / 32] |= 1U << (token % 32);
  }
  return true;
}

const MaskCache::Mask* MaskCache::MaskOf(int32_t state) {
  if (static_cast<size_t>(state) >= masks_.size()) masks_.resize(automaton_->num_states());
  if (masks_[state] != nullptr) return masks_[state].get();
  automaton_->StartWork();
  auto mask = std::make_unique<Mask>();
  const int32_t text_run = TextRun(state);
  mask->num_text_code_points = std::max(text_run, 0);
  const TokenTrie& trie = text_run < 0 ? tokens_->trie() : tokens_->trie_without_text();
  if (!AppendTokens(trie, state, &mask->tokens)) return nullptr;
  const int64_t num_words = tokens_->num_mask_words();
  if (static_cast<int64_t>(mask->tokens.size()) > num_words) {
    const auto base = tokens_->text_mask(mask->num_text_code_points);
    mask->words.assign(base.begin(), base.end());
    for (const int32_t token : mask->tokens) mask->words[token / 32] |= 1U << (token % 32);
    mask->tokens.clear();
  }
  mask->tokens.shrink_to_fit();
  if (memory_bytes_ > max_bytes_) {
    masks_.clear();
    memory_bytes_ = 0;
  }
  memory_bytes_ += static_cast<int64_t>(sizeof(Mask)) +
                   static_cast<int64_t>((mask->tokens.size() + mask->words.size()) * 4);
  if (masks_.size() <= static_cast<size_t>(state)) masks_.resize(automaton_->num_states());
  masks_[state] = std::move(mask);
  return masks_[state].get();
}

// Most states take few first bytes: the nodes of the others are not even looked at.
bool MaskCache::AppendTokens(const TokenTrie& trie, int32_t state, std::vector<int32_t>* tokens) {
  path_[0] = state;
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t root = trie.roots[byte];
    if (root < 0) continue;
    if (automaton_->Step(state, static_cast<uint8_t>(byte)) == Automaton::kDead) continue;
    if (!AppendSubtree(trie, root, tokens)) return false;
  }
  return true;
}

// The tokens of the node and below it; path_ leads to it.
bool MaskCache::AppendSubtree(const TokenTrie& trie, int32_t root, std::vector<int32_t>* tokens) {
  const int32_t end = trie.nodes[root].subtree_end;
  for (int32_t i = root; i < end;) {
    const TokenTrie::Node& node = trie.nodes[i];
    const int32_t next = automaton_->Step(path_[node.depth], node.byte);
    if (next == Automaton::kFailed) return false;
    if (next == Automaton::kDead) {
      i = node.subtree_end;
      continue;
    }
    path_[node.depth + 1] = next;
    for (int32_t k = 0; k < node.num_tokens; ++k) {
      tokens->push_back(trie.tokens[node.first_token + k]);
    }
    ++i;
  }
  return true;
}

int32_t MaskCache::TextRun(int32_t state) {
  absl::InlinedVector<int32_t, 4> level = {state};
  for (int32_t length = 0; length < TokenTable::kMaxTextCodePoints; ++length) {
    absl::InlinedVector<int32_t, 4> next_level;
    size_t num_ended = 0;
    for (const int32_t member : level) {
      const TextStep& step = TextStepOf(member);
      if (step.kind == TextStep::Kind::kNone) ++num_ended;
      if (step.kind == TextStep::Kind::kSome || step.kind == TextStep::Kind::kUnknown) return -1;
      for (const int32_t next : step.next) Insert(next, &next_level);
    }
    if (num_ended == level.size()) return length;
    if (num_ended > 0 || next_level.size() > kMaxRunStates) return -1;
    level = std::move(next_level);
  }
  return static_cast<int32_t>(TokenTable::kMaxTextCodePoints);
}

const MaskCache::TextStep& MaskCache::TextStepOf(int32_t state) {
  if (static_cast<size_t>(state) >= text_steps_.size()) {
    text_steps_.resize(automaton_->num_states());
  }
  if (text_steps_[state].kind == TextStep::Kind::kUnknown) {
    TextStep step = FindTextStep(state);
    text_steps_[state] = std::move(step);
  }
  return text_steps_[state];
}

MaskCache::TextStep MaskCache::FindTextStep(int32_t state) {
  TextStep step;
  bool has_dead = false;
  for (const std::vector<ByteClasses>& places : text_sequences_) {
    absl::InlinedVector<int32_t, 4> level = {state};
    for (const ByteClasses& classes : places) {
      absl::InlinedVector<int32_t, 4> next_level;
      for (const int32_t member : level) {
        for (const int32_t byte_class : classes) {
          const int32_t next = automaton_->StepClass(member, byte_class);
          if (next == Automaton::kFailed) return {};
          has_dead |= next == Automaton::kDead;
          if (next != Automaton::kDead) Insert(next, &next_level);
        }
      }
      level = std::move(next_level);
    }
    for (const int32_t end : level) Insert(end, &step.next);
    if (has_dead && !step.next.empty()) break;
  }
  step.kind = !has_dead           ? TextStep::Kind::kAll
              : step.next.empty() ? TextStep::Kind::kNone
                                  : TextStep::Kind::kSome;
  if (has_dead) step.next.clear();
  return step;
}

}  // namespace nsa::constraint
