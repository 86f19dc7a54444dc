#include "engine/constraint/code_points.h"

#include <algorithm>
#include <array>

namespace nsa::constraint {
namespace {

constexpr CodePointRange kSurrogates{0xD800, 0xDFFF};
constexpr uint32_t kContinuationBits = 6;

void AppendSequences(CodePointRange range, std::vector<ByteSequence>* sequences);

void AppendSplit(CodePointRange range, uint32_t last_of_first,
                 std::vector<ByteSequence>* sequences) {
  AppendSequences({range.low, last_of_first}, sequences);
  AppendSequences({last_of_first + 1, range.high}, sequences);
}

// A range whose bytes vary independently of each other is one sequence; others are split until
// they are.
void AppendSequences(CodePointRange range, std::vector<ByteSequence>* sequences) {
  for (const uint32_t last : {0x7FU, 0x7FFU, 0xFFFFU}) {
    if (range.low <= last && last < range.high) return AppendSplit(range, last, sequences);
  }
  if (range.high > 0x7F) {
    for (uint32_t i = 1; i < 4; ++i) {
      const uint32_t tail = (1U << (kContinuationBits * i)) - 1;
      if ((range.low & ~tail) == (range.high & ~tail)) continue;
      if ((range.low & tail) != 0) return AppendSplit(range, range.low | tail, sequences);
      if ((range.high & tail) != tail) {
        return AppendSplit(range, (range.high & ~tail) - 1, sequences);
      }
    }
  }
  const std::string low = EncodeUtf8(range.low);
  const std::string high = EncodeUtf8(range.high);
  ByteSequence sequence;
  for (size_t i = 0; i < low.size(); ++i) {
    sequence.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  }
  sequences->push_back(std::move(sequence));
}

// Bytes of the sequence that a lead byte starts; 0: no lead byte.
int SequenceBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  return lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
}

}  // namespace

CodePointSet MakeSet(std::vector<CodePointRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const CodePointRange& a, const CodePointRange& b) { return a.low < b.low; });
  CodePointSet merged;
  for (const CodePointRange& range : ranges) {
    if (!merged.empty() && range.low <= merged.back().high + 1) {
      merged.back().high = std::max(merged.back().high, range.high);
    } else {
      merged.push_back(range);
    }
  }
  CodePointSet set;
  for (const CodePointRange& range : merged) {
    if (range.low < kSurrogates.low) {
      set.push_back({range.low, std::min(range.high, kSurrogates.low - 1)});
    }
    if (range.high > kSurrogates.high) {
      set.push_back({std::max(range.low, kSurrogates.high + 1), range.high});
    }
  }
  return set;
}

CodePointSet Complement(const CodePointSet& set) {
  std::vector<CodePointRange> gaps;
  uint32_t next = 0;
  for (const CodePointRange& range : set) {
    if (range.low > next) gaps.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kMaxCodePoint) gaps.push_back({next, kMaxCodePoint});
  return MakeSet(std::move(gaps));
}

CodePointSet Union(const CodePointSet& a, const CodePointSet& b) {
  std::vector<CodePointRange> ranges = a;
  ranges.insert(ranges.end(), b.begin(), b.end());
  return MakeSet(std::move(ranges));
}

CodePointSet Difference(const CodePointSet& a, const CodePointSet& b) {
  return Complement(Union(Complement(a), b));
}

bool Contains(const CodePointSet& set, uint32_t code_point) {
  return std::any_of(set.begin(), set.end(), [code_point](const CodePointRange& range) {
    return range.low <= code_point && code_point <= range.high;
  });
}

CodePointSet AllCodePoints() { return Complement({}); }

std::vector<ByteSequence> Utf8Sequences(const CodePointSet& set) {
  std::vector<ByteSequence> sequences;
  for (const CodePointRange& range : set) AppendSequences(range, &sequences);
  return sequences;
}

std::string EncodeUtf8(uint32_t code_point) {
  const auto tail = [code_point](uint32_t shift) {
    return static_cast<char>(0x80 | ((code_point >> shift) & 0x3F));
  };
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  if (code_point < 0x800) return {static_cast<char>(0xC0 | (code_point >> 6)), tail(0)};
  if (code_point < 0x10000) {
    return {static_cast<char>(0xE0 | (code_point >> 12)), tail(6), tail(0)};
  }
  return {static_cast<char>(0xF0 | (code_point >> 18)), tail(12), tail(6), tail(0)};
}

bool DecodeUtf8(std::string_view text, std::vector<uint32_t>* code_points) {
  constexpr std::array<uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const int num_bytes = SequenceBytes(lead);
    if (num_bytes == 0 || i + num_bytes > text.size()) return false;
    uint32_t code_point = num_bytes == 1 ? lead : lead & (0x7FU >> num_bytes);
    for (int k = 1; k < num_bytes; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      if ((byte & 0xC0) != 0x80) return false;
      code_point = (code_point << kContinuationBits) | (byte & 0x3F);
    }
    const bool is_surrogate = code_point >= kSurrogates.low && code_point <= kSurrogates.high;
    if (code_point < kSmallest[num_bytes] || code_point > kMaxCodePoint || is_surrogate) {
      return false;
    }
    code_points->push_back(code_point);
    i += num_bytes;
  }
  return true;
}

}  // namespace nsa::constraint
