#include <algorithm>
#include <limits>

#include "engine/text/sentencepiece/encoder.h"
#include "engine/text/utf8.h"

namespace nsa::sentencepiece {
namespace {

// Score of an unknown character, below the worst piece.
constexpr float kUnknownPenalty = 10;

}  // namespace

UnigramEncoder::UnigramEncoder(const Vocabulary* vocabulary) : vocabulary_(vocabulary) {
  min_score_ = std::numeric_limits<float>::max();
  max_score_ = std::numeric_limits<float>::lowest();
  for (const Piece& piece : vocabulary->pieces) {
    if (piece.type != PieceType::kNormal) continue;
    min_score_ = std::min(min_score_, piece.score);
    max_score_ = std::max(max_score_, piece.score);
  }
  for (const auto& [text, token] : vocabulary->text_pieces) {
    if (vocabulary->pieces[token].type != PieceType::kUnused) trie_.Insert(text, token);
  }
}

std::vector<Segment> UnigramEncoder::Encode(std::string_view text) const {
  std::vector<BestPath> paths(text.size() + 1);
  for (size_t begin = 0; begin < text.size(); begin += ScanUtf8(text.substr(begin)).num_bytes) {
    Extend(text, static_cast<int64_t>(begin), &paths);
  }
  std::vector<Segment> segments;
  for (auto end = static_cast<int64_t>(text.size()); end > 0; end = paths[end].begin) {
    const BestPath& path = paths[end];
    segments.push_back({text.substr(path.begin, end - path.begin), path.token});
  }
  std::reverse(segments.begin(), segments.end());
  return segments;
}

// Continues the best segmentation of text[0, begin) by every piece that fits there.
void UnigramEncoder::Extend(std::string_view text, int64_t begin,
                            std::vector<BestPath>* paths) const {
  const float score_so_far = (*paths)[begin].score;
  const int64_t character_bytes = ScanUtf8(text.substr(begin)).num_bytes;
  const auto offer = [&](int64_t end, int32_t token, double score) {
    BestPath& path = (*paths)[end];
    const double total = score + score_so_far;
    if (path.begin < 0 || total > path.score) path = {begin, token, static_cast<float>(total)};
  };
  bool has_character = false;
  int32_t node = PieceTrie::kRoot;
  for (auto i = static_cast<size_t>(begin); i < text.size(); ++i) {
    node = trie_.Child(node, text[i]);
    if (node == PieceTrie::kNone) break;
    const int32_t token = trie_.token(node);
    if (token == PieceTrie::kNone) continue;
    const int64_t end = static_cast<int64_t>(i) + 1;
    const Piece& piece = vocabulary_->pieces[token];
    // A user-defined symbol beats every segmentation of the same bytes.
    const double score = piece.type == PieceType::kUserDefined
                             ? static_cast<float>(end - begin) * max_score_ - 0.1
                             : static_cast<double>(piece.score);
    offer(end, token, score);
    has_character |= end - begin == character_bytes;
  }
  if (!has_character) {
    offer(begin + character_bytes, vocabulary_->unknown_token, min_score_ - kUnknownPenalty);
  }
}

}  // namespace nsa::sentencepiece
