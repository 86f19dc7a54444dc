#include "engine/text/detokenizer.h"

#include <string>

#include "base/check.h"
#include "tests/fuzz/targets.h"
#include "tests/support/fake_tokenizer.h"

namespace nsa::fuzz {

// Text comes whole, piece by piece as at once, and valid text comes back as it was.
void Detokenizer(std::string_view input) {
  const FakeTokenizer tokenizer({"\xe2\x82", "a\xf0\x9f"});
  std::vector<int32_t> tokens;
  for (const char byte : input) tokens.push_back(static_cast<uint8_t>(byte));
  // A few tokens of more than a byte, and some that there are not.
  if (tokens.size() > 2) tokens[tokens.size() / 2] += FakeTokenizer::kFirstPiece - 1;
  IncrementalDetokenizer detokenizer(&tokenizer, /*at_text_start=*/true);
  std::string text;
  for (const int32_t token : tokens) {
    const std::string piece = detokenizer.Push(token);
    NSA_CHECK(IsValidUtf8(piece));
    text += piece;
  }
  text += detokenizer.Finish();
  NSA_CHECK(text == tokenizer.Decode(tokens));
  const auto encoded = tokenizer.Encode(input, /*add_special_tokens=*/false);
  NSA_CHECK(!encoded.ok() || tokenizer.Decode(*encoded) == input);
}

}  // namespace nsa::fuzz
