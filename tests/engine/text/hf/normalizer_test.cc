#include "engine/text/hf/normalizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nsa::hf {
namespace {

using Json = nlohmann::json;

TEST(NormalizerTest, Composition) {
  EXPECT_EQ(ComposedUtf8("plain"), "plain");
  EXPECT_EQ(ComposedUtf8(""), "");
  EXPECT_EQ(ComposedUtf8("e\xCC\x81"), "\xC3\xA9");                                 // e + acute
  EXPECT_EQ(ComposedUtf8("\xE2\x84\xAB"), "\xC3\x85");                              // Angstrom sign
  EXPECT_EQ(ComposedUtf8("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"), "\xEA\xB0\x81");  // Hangul
  EXPECT_EQ(ComposedUtf8("q\xCC\x87\xCC\xA3"), "q\xCC\xA3\xCC\x87");    // marks in order
  EXPECT_EQ(ComposedUtf8("\xE0\xA5\x98"), "\xE0\xA4\x95\xE0\xA4\xBC");  // excluded from composition
  EXPECT_EQ(ComposedUtf8("\xEF\xAC\x81"), "\xEF\xAC\x81");              // a ligature stays
  EXPECT_EQ(ComposedUtf8(std::string("a\0\xC3\xA9", 4)), std::string("a\0\xC3\xA9", 4));
}

// Sorting by exchanging neighbours would take minutes.
TEST(NormalizerTest, ALongRunOfMarks) {
  std::string text = "q";
  std::string sorted = "q";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\xCC\x87" : "\xCC\xA3";
  for (int i = 0; i < 100'000; ++i) sorted += "\xCC\xA3";
  for (int i = 0; i < 100'000; ++i) sorted += "\xCC\x87";
  EXPECT_TRUE(ComposedUtf8(text) == sorted);
}

TEST(NormalizerTest, Kinds) {
  const auto parse = [](const Json& json) {
    return Normalizer::Parse(JsonNode(&json, "normalizer"));
  };
  const std::string text = "e\xCC\x81";
  EXPECT_EQ(parse(nullptr)->Normalized(text), text);
  EXPECT_EQ(parse({{"type", "NFC"}})->Normalized(text), "\xC3\xA9");
  const Json empty = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  EXPECT_EQ(parse(empty)->Normalized(text), text);
  const Json one = Json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})");
  EXPECT_EQ(parse(one)->Normalized(text), "\xC3\xA9");
  const absl::Status refused = parse({{"type", "Lowercase"}}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(refused.message(),
            "normalizer.type is \"Lowercase\"; supported: null, NFC and Sequence of these");
}

}  // namespace
}  // namespace nsa::hf
