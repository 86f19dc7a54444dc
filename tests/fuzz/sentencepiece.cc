#include <string>
#include <vector>

#include "base/check.h"
#include "engine/text/sentencepiece_model.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void SentencePiece(std::string_view input) {
  const auto model = SentencePieceModel::Parse(input);
  if (model == nullptr) return;
  const int32_t vocab_size = model->vocab_size();
  NSA_CHECK_GE(vocab_size, 0);
  for (int32_t token = 0; token < std::min(vocab_size, 300); ++token) {
    (void)model->TokenBytes(token);
    (void)model->Spelling(token);
    (void)model->IsControl(token);
  }
  (void)model->AddsLeadingSpace();
  NSA_CHECK(model->bos_token() >= -1 && model->bos_token() < vocab_size);
  NSA_CHECK(model->eos_token() >= -1 && model->eos_token() < vocab_size);
  std::vector<int32_t> tokens;
  if (!model->Encode("The cat's 12\n  \xc3\xa9t\xc3\xa9", &tokens)) return;
  for (const int32_t token : tokens) NSA_CHECK(token >= 0 && token < vocab_size) << token;
}

}  // namespace nsa::fuzz
