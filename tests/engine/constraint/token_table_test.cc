#include "engine/constraint/token_table.h"

#include <gtest/gtest.h>

#include <array>
#include <map>

#include "tests/support/fake_tokenizer.h"

namespace nsa {
namespace {

std::map<int32_t, std::string> Spelled(const TokenTrie& trie) {
  std::map<int32_t, std::string> spelled;
  std::string path;
  std::array<int32_t, 256> roots;
  roots.fill(-1);
  for (size_t i = 0; i < trie.nodes.size(); ++i) {
    const TokenTrie::Node& node = trie.nodes[i];
    path.resize(node.depth);
    path += static_cast<char>(node.byte);
    EXPECT_GT(node.subtree_end, static_cast<int32_t>(i));
    for (int32_t k = 0; k < node.num_tokens; ++k) spelled[trie.tokens[node.first_token + k]] = path;
    if (node.depth == 0) roots[node.byte] = static_cast<int32_t>(i);
  }
  EXPECT_EQ(trie.roots, roots);
  return spelled;
}

TEST(TokenTableTest, TheTrieSpellsEveryTokenOnce) {
  const std::vector<std::string> bytes = {"b", "abc", "", "ab", "\xFF\xC3", "ab", "x", "</s>"};
  const auto table = TokenTable::Create(bytes, std::vector<int32_t>{7}).value();
  std::map<int32_t, std::string> expected;
  for (int32_t token = 0; token < 7; ++token) {
    if (!bytes[token].empty()) expected[token] = bytes[token];
  }
  EXPECT_EQ(Spelled(table->trie()), expected);
  EXPECT_EQ(table->trie().max_depth, 3);
  EXPECT_TRUE(table->is_eos(7));
  EXPECT_FALSE(table->is_eos(6));
}

TEST(TokenTableTest, TextTokensAreSortedByLength) {
  const std::string longest(TokenTable::kMaxTextCodePoints, 'a');
  const std::vector<std::string> bytes = {"a",     "\xC3\xA9\xC3\xA9", "a\"", "\xC3", "\n", "a\\",
                                          longest, longest + "a"};
  const auto table = TokenTable::Create(bytes, std::vector<int32_t>{}).value();
  EXPECT_EQ(table->text_mask(0)[0], 0U);
  EXPECT_EQ(table->text_mask(1)[0], 0b1U);
  EXPECT_EQ(table->text_mask(2)[0], 0b11U);
  EXPECT_EQ(table->text_mask(TokenTable::kMaxTextCodePoints)[0], 0b1000011U);
  const auto rest = Spelled(table->trie_without_text());
  EXPECT_EQ(rest.size(), 5U);
  EXPECT_FALSE(rest.contains(0) || rest.contains(1) || rest.contains(6));
}

TEST(TokenTableTest, RefusesWhatIsNoVocabulary) {
  EXPECT_FALSE(TokenTable::Create(std::vector<std::string>{}, std::vector<int32_t>{}).ok());
  EXPECT_FALSE(TokenTable::Create({"a"}, std::vector<int32_t>{1}).ok());
  EXPECT_FALSE(TokenTable::Create({"a"}, std::vector<int32_t>{-1}).ok());
  const std::string longest(TokenTable::kMaxTokenBytes, 'a');
  EXPECT_TRUE(TokenTable::Create({longest}, std::vector<int32_t>{}).ok());
  EXPECT_FALSE(TokenTable::Create({longest + "a"}, std::vector<int32_t>{}).ok());
}

TEST(TokenTableTest, ATokenizersControlTokensAreNotText) {
  const FakeTokenizer tokenizer({"piece"});
  const auto table =
      TokenTable::Create(tokenizer, std::vector<int32_t>{FakeTokenizer::kEos}).value();
  EXPECT_EQ(table->vocab_size(), tokenizer.vocab_size());
  EXPECT_EQ(table->bytes(FakeTokenizer::kFirstPiece), "piece");
  EXPECT_FALSE(Spelled(table->trie()).contains(FakeTokenizer::kBos));
}

}  // namespace
}  // namespace nsa
