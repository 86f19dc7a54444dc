#include <queue>
#include <unordered_map>
#include <utility>

#include "engine/text/sentencepiece/encoder.h"
#include "engine/text/utf8.h"

namespace nsa::sentencepiece {
namespace {

// A part of the text; the parts form a list.
struct Part {
  std::string_view text;  // empty once joined to its left neighbour
  int64_t previous, next;
  bool is_symbol;  // never joined
};

struct Union {
  int64_t left, right;
  float score;
  size_t num_bytes;  // of the union when it was found; other sizes mean that a part has changed

  // For a queue that gives the best score first, then the leftmost.
  bool operator<(const Union& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

class BpeEncoder {
 public:
  BpeEncoder(const Vocabulary& vocabulary, const PieceTrie& symbols, std::string_view text)
      : vocabulary_(vocabulary) {
    SplitIntoCharacters(symbols, text);
  }

  std::vector<Segment> Run() {
    for (size_t i = 1; i < parts_.size(); ++i) Propose(static_cast<int64_t>(i) - 1, i);
    while (!queue_.empty()) {
      const Union best = queue_.top();
      queue_.pop();
      Join(best);
    }
    std::vector<Segment> segments;
    for (int64_t i = parts_.empty() ? -1 : 0; i >= 0; i = parts_[i].next) {
      AppendSegments(parts_[i].text, &segments);
    }
    return segments;
  }

 private:
  void SplitIntoCharacters(const PieceTrie& symbols, std::string_view text) {
    while (!text.empty()) {
      const int64_t symbol_bytes = symbols.LongestMatch(text);
      const int64_t num_bytes = symbol_bytes > 0 ? symbol_bytes : ScanUtf8(text).num_bytes;
      const auto idx = static_cast<int64_t>(parts_.size());
      parts_.push_back({text.substr(0, num_bytes), idx - 1, idx + 1, symbol_bytes > 0});
      text.remove_prefix(num_bytes);
    }
    if (!parts_.empty()) parts_.back().next = -1;
  }

  void Propose(int64_t left, int64_t right) {
    if (left < 0 || right < 0 || parts_[left].is_symbol || parts_[right].is_symbol) return;
    // Neighbours lie side by side in the text.
    const std::string_view joined(parts_[left].text.data(),
                                  parts_[left].text.size() + parts_[right].text.size());
    const auto piece = vocabulary_.text_pieces.find(joined);
    if (piece == vocabulary_.text_pieces.end()) return;
    const Piece& found = vocabulary_.pieces[piece->second];
    queue_.push({left, right, found.score, joined.size()});
    if (found.type == PieceType::kUnused) {
      unused_halves_[joined] = {parts_[left].text, parts_[right].text};
    }
  }

  void Join(const Union& best) {
    Part& left = parts_[best.left];
    Part& right = parts_[best.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != best.num_bytes) {
      return;
    }
    left.text = std::string_view(left.text.data(), best.num_bytes);
    left.next = right.next;
    if (right.next >= 0) parts_[right.next].previous = best.left;
    right.text = {};
    Propose(left.previous, best.left);
    Propose(best.left, left.next);
  }

  // An unused piece only leads to larger ones; where it is left over, it falls apart again.
  void AppendSegments(std::string_view text, std::vector<Segment>* segments) const {
    const int32_t token = vocabulary_.TokenOf(text);
    const auto halves = unused_halves_.find(text);
    const bool is_unused = vocabulary_.pieces[token].type == PieceType::kUnused;
    if (!is_unused || halves == unused_halves_.end()) {
      segments->push_back({text, token});
      return;
    }
    AppendSegments(halves->second.first, segments);
    AppendSegments(halves->second.second, segments);
  }

  const Vocabulary& vocabulary_;
  std::vector<Part> parts_;
  std::priority_queue<Union> queue_;
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>>
      unused_halves_;
};

}  // namespace

std::vector<Segment> EncodeBpe(const Vocabulary& vocabulary, const PieceTrie& symbols,
                               std::string_view text) {
  return BpeEncoder(vocabulary, symbols, text).Run();
}

}  // namespace nsa::sentencepiece
