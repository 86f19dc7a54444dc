#include "engine/constraint/code_points.h"

#include <gtest/gtest.h>

namespace nsa::constraint {
namespace {

bool Matches(const std::vector<ByteSequence>& sequences, const std::string& bytes) {
  int num_matches = 0;
  for (const ByteSequence& sequence : sequences) {
    bool matches = sequence.size() == bytes.size();
    for (size_t i = 0; i < bytes.size() && matches; ++i) {
      const auto byte = static_cast<uint8_t>(bytes[i]);
      matches = sequence[i].low <= byte && byte <= sequence[i].high;
    }
    num_matches += matches ? 1 : 0;
  }
  EXPECT_LE(num_matches, 1);
  return num_matches == 1;
}

TEST(CodePointsTest, SequencesSpellExactlyTheSet) {
  const CodePointSet sets[] = {
      AllCodePoints(),
      {{0x41, 0x41}},
      MakeSet({{0x7E, 0x801}, {0xFFF0, 0x10010}}),
      Complement({{0x80, 0x10FFFE}}),
      MakeSet({{0x123, 0x4567}, {0xD000, 0xE123}, {0xF0000, 0x10FFFF}}),
  };
  for (const CodePointSet& set : sets) {
    const auto sequences = Utf8Sequences(set);
    for (uint32_t c = 0; c <= kMaxCodePoint; c += c < 0x11000 ? 1 : 97) {
      if (c >= 0xD800 && c <= 0xDFFF) continue;
      ASSERT_EQ(Matches(sequences, EncodeUtf8(c)), Contains(set, c)) << c;
    }
  }
}

TEST(CodePointsTest, NoSequenceIsOutsideOfUtf8) {
  const auto sequences = Utf8Sequences(AllCodePoints());
  EXPECT_FALSE(Matches(sequences, "\xC0\x80"));          // overlong
  EXPECT_FALSE(Matches(sequences, "\xE0\x80\x80"));      // overlong
  EXPECT_FALSE(Matches(sequences, "\xED\xA0\x80"));      // a surrogate
  EXPECT_FALSE(Matches(sequences, "\xF4\x90\x80\x80"));  // over U+10FFFF
  EXPECT_FALSE(Matches(sequences, "\x80"));
}

TEST(CodePointsTest, SetOperations) {
  const CodePointSet set = MakeSet({{5, 9}, {1, 4}, {20, 30}, {25, 40}});
  EXPECT_EQ(set, (CodePointSet{{1, 9}, {20, 40}}));
  EXPECT_EQ(Complement(Complement(set)), set);
  EXPECT_EQ(Difference(set, {{3, 22}}), (CodePointSet{{1, 2}, {23, 40}}));
  EXPECT_EQ(Union(set, {{10, 19}}), (CodePointSet{{1, 40}}));
  EXPECT_EQ(MakeSet({{0xD7FF, 0xE000}}), (CodePointSet{{0xD7FF, 0xD7FF}, {0xE000, 0xE000}}));
}

TEST(CodePointsTest, DecodingTakesUtf8Only) {
  std::vector<uint32_t> code_points;
  EXPECT_TRUE(DecodeUtf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", &code_points));
  EXPECT_EQ(code_points, (std::vector<uint32_t>{'a', 0xE9, 0x20AC, 0x1F600}));
  for (const char* bad :
       {"\xC3", "\xC1\x81", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x28\xA1"}) {
    code_points.clear();
    EXPECT_FALSE(DecodeUtf8(bad, &code_points)) << bad;
  }
}

}  // namespace
}  // namespace nsa::constraint
