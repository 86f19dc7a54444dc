#pragma once
// How normalized text is split into pieces, for each type of model.

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/sentencepiece/piece_trie.h"
#include "engine/text/sentencepiece/vocabulary.h"

namespace nsa::sentencepiece {

// A part of the text and its token; the unknown token where the vocabulary lacks the part.
struct Segment {
  std::string_view text;
  int32_t token;
};

// Byte-pair encoding: starting from characters (and whole `symbols`), joins the neighbours whose
// union has the best score, the leftmost of equals, until no union is a piece.
std::vector<Segment> EncodeBpe(const Vocabulary& vocabulary, const PieceTrie& symbols,
                               std::string_view text);

// Unigram: the segmentation with the largest sum of scores.
class UnigramEncoder {
 public:
  // The vocabulary must outlive this.
  explicit UnigramEncoder(const Vocabulary* vocabulary);
  std::vector<Segment> Encode(std::string_view text) const;

 private:
  // The best segmentation of the text up to a byte.
  struct BestPath {
    int64_t begin = -1;  // of its last segment; -1: none yet
    int32_t token = -1;
    float score = 0;
  };
  void Extend(std::string_view text, int64_t begin, std::vector<BestPath>* paths) const;

  const Vocabulary* vocabulary_;
  PieceTrie trie_;
  float min_score_ = 0;  // over the normal pieces
  float max_score_ = 0;
};

}  // namespace nsa::sentencepiece
