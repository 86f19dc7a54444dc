#pragma once
// Sets of Unicode code points, and how they look as UTF-8 bytes.

#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace nsa::constraint {

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

// low <= high, both included.
struct CodePointRange {
  uint32_t low = 0;
  uint32_t high = 0;
  bool operator==(const CodePointRange&) const = default;
};

// Ascending, neither touching nor overlapping, without surrogates (which UTF-8 cannot write).
using CodePointSet = std::vector<CodePointRange>;

// The set of any ranges, in any order.
CodePointSet MakeSet(std::vector<CodePointRange> ranges);
CodePointSet Complement(const CodePointSet& set);
CodePointSet Union(const CodePointSet& a, const CodePointSet& b);
CodePointSet Difference(const CodePointSet& a, const CodePointSet& b);
bool Contains(const CodePointSet& set, uint32_t code_point);
CodePointSet AllCodePoints();

struct ByteRange {
  uint8_t low = 0;
  uint8_t high = 0;
  bool operator==(const ByteRange&) const = default;
  bool operator<(const ByteRange& other) const {
    return std::tie(low, high) < std::tie(other.low, other.high);
  }
};
using ByteSequence = std::vector<ByteRange>;  // 1 to 4 of them

// Sequences that together spell exactly the code points of the set, each once.
std::vector<ByteSequence> Utf8Sequences(const CodePointSet& set);

std::string EncodeUtf8(uint32_t code_point);
// The code points of a text that is valid UTF-8; false if it is not.
bool DecodeUtf8(std::string_view text, std::vector<uint32_t>* code_points);

}  // namespace nsa::constraint
