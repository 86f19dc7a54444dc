#include "engine/text/sentencepiece_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/text/detokenizer.h"
#include "engine/text/sentencepiece_model.h"

namespace nsa {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;  // the largest known have a few MB

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model, bool add_bos)
      : model_(std::move(model)),
        add_bos_(add_bos && model_->bos_token() >= 0),
        adds_leading_space_(model_->AddsLeadingSpace()) {
    for (int32_t token = 0; token < model_->vocab_size(); ++token) {
      token_bytes_.push_back(model_->TokenBytes(token));
      if (model_->IsControl(token)) control_tokens_.push_back({model_->Spelling(token), token});
      const std::string text =
          model_->IsControl(token) ? model_->Spelling(token) : token_bytes_[token];
      max_token_bytes_ = std::max(max_token_bytes_, static_cast<int64_t>(text.size()));
    }
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& tokens) const override;
  std::string TokenBytes(int32_t token) const override {
    return token >= 0 && token < vocab_size() ? token_bytes_[token] : std::string();
  }
  int64_t max_token_bytes() const override { return max_token_bytes_; }
  int32_t vocab_size() const override { return static_cast<int32_t>(token_bytes_.size()); }
  int32_t bos_token() const override { return model_->bos_token(); }
  int32_t eos_token() const override { return model_->eos_token(); }
  bool adds_leading_space() const override { return adds_leading_space_; }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const std::unique_ptr<SentencePieceModel> model_;
  const bool add_bos_;
  const bool adds_leading_space_;
  std::vector<std::string> token_bytes_;  // [vocab_size]
  std::vector<ControlToken> control_tokens_;
  int64_t max_token_bytes_ = 1;
};

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::Encode(std::string_view text,
                                                                    bool add_special_tokens) const {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  std::vector<int32_t> pieces;
  if (!model_->Encode(text, &pieces)) return absl::InternalError("tokenization failed");
  if (add_special_tokens && add_bos_) pieces.insert(pieces.begin(), bos_token());
  return pieces;
}

std::string SentencePieceTokenizer::Decode(const std::vector<int32_t>& tokens) const {
  IncrementalDetokenizer detokenizer(this, /*at_text_start=*/true);
  std::string text;
  for (const int32_t token : tokens) text += detokenizer.Push(token);
  return text + detokenizer.Finish();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                      bool add_bos) {
  NSA_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
  std::unique_ptr<SentencePieceModel> model = SentencePieceModel::Parse(bytes);
  if (model == nullptr || model->vocab_size() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a SentencePiece model"));
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(model), add_bos);
}

}  // namespace nsa
