// Damaged tokenizer.json files: whatever is in them, loading ends in an error or in a tokenizer
// that works.

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/utf8.h"
#include "engine/text/hf/hf_tokenizer.h"
#include "tests/support/tiny_bpe.h"

namespace nsa {
namespace {

constexpr int kRounds = 1500;

void Use(std::string_view json_text) {
  const auto tokenizer = ParseHfTokenizer(json_text, {});
  if (!tokenizer.ok()) {
    EXPECT_FALSE(tokenizer.status().message().empty());
    return;
  }
  const auto tokens = (*tokenizer)->Encode("I'll see the <call> \xE4\xB8\xAD  123\n", true);
  if (!tokens.ok()) return;
  for (const int32_t token : *tokens) {
    EXPECT_GE(token, 0);
    EXPECT_LT(token, (*tokenizer)->vocab_size());
  }
  EXPECT_TRUE(IsValidUtf8((*tokenizer)->Decode(*tokens)));
}

TEST(HfTokenizerFuzzTest, DamagedBytes) {
  const std::string original = TinyBpeFile().dump();
  std::mt19937 random(3);
  for (int round = 0; round < kRounds; ++round) {
    std::string text = original;
    for (int i = 0; i < 1 + static_cast<int>(random() % 3); ++i) {
      text[random() % text.size()] = "\"{}[]:,0123456789e-\\ atrue\xFF"[random() % 26];
    }
    Use(text);
  }
}

// Every value of the file in turn becomes one of another kind.
TEST(HfTokenizerFuzzTest, WrongValues) {
  const nlohmann::json original = TinyBpeFile();
  const nlohmann::json values = nlohmann::json::parse(
      R"([null, true, -1, 0, 260, 1048576, 1e300, "", "x", "Sequence", [], {}, ["a"], {"type": "Split"}])");
  int num_cases = 0;
  const nlohmann::json leaves = original.flatten();
  for (const auto& [pointer, leaf] : leaves.items()) {
    if (pointer.starts_with("/model/vocab/") && ++num_cases > 20) continue;
    for (std::string path = pointer; !path.empty(); path = path.substr(0, path.rfind('/'))) {
      for (const nlohmann::json& value : values) {
        nlohmann::json file = original;
        file[nlohmann::json::json_pointer(path)] = value;
        Use(file.dump());
      }
    }
  }
  EXPECT_GT(num_cases, 20);
}

}  // namespace
}  // namespace nsa
