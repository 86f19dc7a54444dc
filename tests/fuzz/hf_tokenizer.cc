#include <string>

#include "base/check.h"
#include "base/utf8.h"
#include "engine/text/hf/hf_tokenizer.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {
namespace {

constexpr size_t kMaxTextBytes = 4096;

// Every token that comes out of a text is in the vocabulary, and is counted by its bytes.
void CheckEncode(const Tokenizer& tokenizer, std::string_view text) {
  const auto tokens = tokenizer.Encode(text, /*add_special_tokens=*/true);
  if (!tokens.ok()) return;
  for (const int32_t token : *tokens) {
    NSA_CHECK(token >= 0 && token < tokenizer.vocab_size()) << token;
    NSA_CHECK_LE(static_cast<int64_t>(tokenizer.TokenBytes(token).size()),
                 tokenizer.max_token_bytes());
  }
  NSA_CHECK(IsValidUtf8(tokenizer.Decode(*tokens)));
}

}  // namespace

void HfTokenizer(std::string_view input) {
  const auto [file, text] = SplitInput(input);
  const auto tokenizer = ParseHfTokenizer(file, {});
  if (!tokenizer.ok()) return;
  CheckEncode(**tokenizer, "The cat's <|end|> 123\n\n  \xc3\xa9t\xc3\xa9");
  CheckEncode(**tokenizer, text.substr(0, kMaxTextBytes));
}

}  // namespace nsa::fuzz
