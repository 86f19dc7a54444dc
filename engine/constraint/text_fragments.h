#pragma once
// Pieces of grammars that read text: literals, code points, the insides of JSON strings. Each adds
// what lies between two states.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/constraint/code_points.h"
#include "engine/constraint/grammar.h"

namespace nsa::constraint {

enum class TextEncoding : uint8_t {
  kPlain,       // UTF-8
  kJsonString,  // inside the quotes of a JSON string, each code point in its one shortest spelling
};

void AddText(Grammar* grammar, std::string_view text, StateId from, StateId to);

// One code point of the set.
void AddCodePoint(Grammar* grammar, const CodePointSet& set, TextEncoding encoding, StateId from,
                  StateId to);

// Any one of the texts; common beginnings share their states.
void AddAnyText(Grammar* grammar, const std::vector<std::string>& texts, StateId from, StateId to);

// One code point inside a JSON string, in any spelling but a lone surrogate's.
void AddJsonCharacter(Grammar* grammar, StateId from, StateId to);

// A JSON string with its quotes, of min to max code points (no max: without end).
void AddJsonString(Grammar* grammar, int64_t min_length, std::optional<int64_t> max_length,
                   StateId from, StateId to);

// A JSON string with its quotes that is none of `excluded` (valid UTF-8), each code point in its
// shortest spelling: no escape smuggles in an excluded string.
void AddOtherJsonString(Grammar* grammar, const std::vector<std::string>& excluded, StateId from,
                        StateId to);

}  // namespace nsa::constraint
