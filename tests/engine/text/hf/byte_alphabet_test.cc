#include "engine/text/hf/byte_alphabet.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_bpe.h"

namespace nsa::hf {
namespace {

TEST(ByteAlphabetTest, EveryByteHasOneSpelling) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(BytesOfSpelling(SpelledBytes(bytes)), bytes) << byte;
  }
  EXPECT_EQ(BytesOfSpelling("\xC4\xA0the\xC4\x8A"), " the\n");  // as published vocabularies have it
  EXPECT_EQ(BytesOfSpelling(""), "");
}

TEST(ByteAlphabetTest, OtherCodePointsSpellNothing) {
  // A raw space, a control character, DEL, U+00A0, U+00AD, U+0144, U+2581, an emoji.
  for (const char* text : {"a b", "\n", "\x7F", "\xC2\xA0", "\xC2\xAD", "\xC5\x84", "\xE2\x96\x81",
                           "\xF0\x9F\x98\x80"}) {
    EXPECT_FALSE(BytesOfSpelling(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace nsa::hf
