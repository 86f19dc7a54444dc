#include "engine/text/hf/hf_tokenizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/text/detokenizer.h"
#include "engine/text/hf/added_tokens.h"
#include "engine/text/hf/bpe_file.h"
#include "engine/text/hf/bpe_model.h"
#include "engine/text/hf/normalizer.h"
#include "engine/text/hf/post_processor.h"
#include "engine/text/hf/pre_tokenizer.h"
#include "engine/text/json_text.h"

namespace nsa {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;  // the largest known have 33 MB
constexpr int64_t kMaxTextBytes = int64_t{1} << 30;   // positions are 32-bit numbers

// Time that the patterns may take: far more than any usual text needs.
absl::Duration TimeFor(std::string_view text) {
  return absl::Seconds(1) + absl::Microseconds(1) * static_cast<int64_t>(text.size());
}

struct Parts {
  hf::AddedTokenSplitter splitter;
  hf::PreTokenizer pre_tokenizer;
  hf::BpeModel model;
  std::vector<std::string> token_bytes;  // by id
  std::vector<ControlToken> control_tokens;
  std::vector<int32_t> prefix;  // in front of a text with special tokens
  int32_t bos_token = -1, eos_token = -1;
};

class HfTokenizer : public Tokenizer {
 public:
  explicit HfTokenizer(Parts parts) : parts_(std::move(parts)) {
    for (const std::string& bytes : parts_.token_bytes) Cover(bytes);
    for (const ControlToken& control : parts_.control_tokens) Cover(control.text);
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& tokens) const override;
  std::string TokenBytes(int32_t token) const override {
    return token >= 0 && token < vocab_size() ? parts_.token_bytes[token] : std::string();
  }
  int64_t max_token_bytes() const override { return max_token_bytes_; }
  int32_t vocab_size() const override { return static_cast<int32_t>(parts_.token_bytes.size()); }
  int32_t bos_token() const override { return parts_.bos_token; }
  int32_t eos_token() const override { return parts_.eos_token; }
  // The byte-level decoder takes no space away, even where the encoder added one.
  bool adds_leading_space() const override { return false; }
  const std::vector<ControlToken>& control_tokens() const override { return parts_.control_tokens; }

 private:
  void Cover(const std::string& text) {
    max_token_bytes_ = std::max(max_token_bytes_, static_cast<int64_t>(text.size()));
  }

  const Parts parts_;
  int64_t max_token_bytes_ = 1;
};

absl::StatusOr<std::vector<int32_t>> HfTokenizer::Encode(std::string_view text,
                                                         bool add_special_tokens) const {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes; allowed: ", kMaxTextBytes));
  }
  std::vector<int32_t> tokens;
  if (add_special_tokens) tokens = parts_.prefix;
  hf::MatchState state(absl::Now() + TimeFor(text));
  hf::BpeModel::Scratch scratch;
  const auto encode_word = [&](std::string_view word) {
    parts_.model.Encode(word, &scratch, &tokens);
    return absl::OkStatus();
  };
  const auto encode_text = [&](std::string_view part) -> absl::Status {
    std::string with_space;
    if (parts_.pre_tokenizer.adds_leading_space() && !part.starts_with(" ")) {
      with_space.append(" ").append(part);
      part = with_space;
    }
    return parts_.pre_tokenizer.Split(part, &state, encode_word);
  };
  const auto add_token = [&](int32_t token) { tokens.push_back(token); };
  NSA_RETURN_IF_ERROR(parts_.splitter.Split(text, encode_text, add_token));
  return tokens;
}

std::string HfTokenizer::Decode(const std::vector<int32_t>& tokens) const {
  IncrementalDetokenizer detokenizer(this, /*at_text_start=*/true);
  std::string text;
  for (const int32_t token : tokens) text += detokenizer.Push(token);
  return text + detokenizer.Finish();
}

// ByteLevel, or a sequence of nothing else.
absl::Status CheckDecoder(const JsonNode& node) {
  const JsonNode type = node.Member("type");
  if (node.is_absent() || type.is_absent()) return node.Unsupported("ByteLevel");
  if (type.value() == "ByteLevel") return absl::OkStatus();
  NSA_ASSIGN_OR_RETURN(const auto decoders, node.Member("decoders").Elements());
  if (type.value() != "Sequence" || decoders.size() != 1) return type.Unsupported("ByteLevel");
  return CheckDecoder(decoders[0]);
}

// The id of the token that the config names; -1 if it names none.
absl::StatusOr<int32_t> NamedToken(const std::optional<std::string>& name, const char* key,
                                   const std::vector<hf::AddedToken>& added) {
  if (!name.has_value()) return -1;
  for (const hf::AddedToken& token : added) {
    if (token.content == *name) return token.id;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(key, " of tokenizer_config.json is \"", ClipUtf8(*name, 100),
                   "\", which is not among the added_tokens of tokenizer.json"));
}

absl::Status SetSpecialTokens(const JsonNode& file, const TokenizerConfig& config,
                              const std::vector<hf::AddedToken>& added, Parts* parts) {
  NSA_ASSIGN_OR_RETURN(parts->prefix, hf::ParseTextPrefix(file.Member("post_processor")));
  for (const int32_t token : parts->prefix) {
    if (token < static_cast<int32_t>(parts->token_bytes.size())) continue;
    return absl::InvalidArgumentError(absl::StrCat("post_processor: there is no token ", token,
                                                   "; allowed: 0 to ",
                                                   parts->token_bytes.size() - 1));
  }
  NSA_ASSIGN_OR_RETURN(parts->bos_token, NamedToken(config.bos_token, "bos_token", added));
  NSA_ASSIGN_OR_RETURN(parts->eos_token, NamedToken(config.eos_token, "eos_token", added));
  if (parts->bos_token < 0 && !parts->prefix.empty()) parts->bos_token = parts->prefix[0];
  if (!config.add_bos.has_value()) return absl::OkStatus();
  if (*config.add_bos && parts->bos_token < 0) {
    return absl::InvalidArgumentError(
        "add_bos_token of tokenizer_config.json is true, but bos_token is absent");
  }
  parts->prefix.clear();
  if (*config.add_bos) parts->prefix.push_back(parts->bos_token);
  return absl::OkStatus();
}

}  // namespace

// truncation and padding are settings of batches, which a server of prompts has no use for.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseHfTokenizer(std::string_view json_text,
                                                            const TokenizerConfig& config) {
  NSA_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonDocument(json_text));
  const JsonNode file(&json);
  NSA_ASSIGN_OR_RETURN(const hf::Normalizer normalizer,
                       hf::Normalizer::Parse(file.Member("normalizer")));
  NSA_ASSIGN_OR_RETURN(hf::PreTokenizer pre_tokenizer,
                       hf::PreTokenizer::Parse(file.Member("pre_tokenizer")));
  NSA_RETURN_IF_ERROR(CheckDecoder(file.Member("decoder")));
  NSA_ASSIGN_OR_RETURN(const auto added, hf::ParseAddedTokens(file.Member("added_tokens")));
  NSA_ASSIGN_OR_RETURN(hf::BpeFile bpe, hf::ParseBpeFile(file.Member("model"), added));
  std::vector<std::string> token_bytes;
  token_bytes.reserve(bpe.spec.tokens.size());
  for (const auto& token : bpe.spec.tokens) token_bytes.push_back(token.bytes);
  NSA_ASSIGN_OR_RETURN(hf::BpeModel model, hf::BpeModel::Make(std::move(bpe.spec)));
  Parts parts{.splitter = hf::AddedTokenSplitter(added, normalizer),
              .pre_tokenizer = std::move(pre_tokenizer),
              .model = std::move(model),
              .token_bytes = std::move(token_bytes),
              .control_tokens = std::move(bpe.control_tokens)};
  NSA_RETURN_IF_ERROR(SetSpecialTokens(file, config, added, &parts));
  return std::make_unique<HfTokenizer>(std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHfTokenizer(const std::string& path,
                                                           const TokenizerConfig& config) {
  NSA_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  auto tokenizer = ParseHfTokenizer(text, config);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(path, ": ", tokenizer.status().message()));
}

}  // namespace nsa
