#include "engine/text/hf/bpe_file.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/text/hf/byte_alphabet.h"

namespace nsa::hf {
namespace {

constexpr int64_t kMaxShownBytes = 60;

std::string Quoted(std::string_view text) {
  return absl::StrCat("\"", ClipUtf8(text, kMaxShownBytes), "\"");
}

// Collects tokens by id and by spelling.
class Builder {
 public:
  explicit Builder(BpeFile* file) : file_(file) {}

  absl::Status AddVocabulary(const JsonNode& vocab);
  absl::Status AddMerges(const JsonNode& merges);
  absl::Status AddAdded(const std::vector<AddedToken>& tokens);

 private:
  absl::Status Claim(int32_t id, std::string_view spelling, const JsonNode& node);
  absl::StatusOr<int32_t> IdOf(const std::string& spelling, const JsonNode& node) const;
  absl::Status AddMerge(const JsonNode& node, const std::string& left, const std::string& right);

  BpeFile* file_;
  std::vector<bool> is_claimed_;                   // by id
  absl::flat_hash_map<std::string, int32_t> ids_;  // by the vocabulary's spelling
};

// Makes room for an id that nobody else may have.
absl::Status Builder::Claim(int32_t id, std::string_view spelling, const JsonNode& node) {
  auto& tokens = file_->spec.tokens;
  if (id >= static_cast<int32_t>(tokens.size())) {
    tokens.resize(id + 1);
    is_claimed_.resize(id + 1);
  }
  if (is_claimed_[id]) {
    return absl::InvalidArgumentError(absl::StrCat(node.path(), ": ", Quoted(spelling), " has id ",
                                                   id, ", which another token has too"));
  }
  is_claimed_[id] = true;
  return absl::OkStatus();
}

absl::Status Builder::AddVocabulary(const JsonNode& vocab) {
  if (vocab.is_absent() || !vocab.value().is_object()) {
    return vocab.Invalid("an object of token spellings and ids");
  }
  for (const auto& [spelling, value] : vocab.value().items()) {
    const JsonNode node(&value, absl::StrCat(vocab.path(), "[", Quoted(spelling), "]"));
    NSA_ASSIGN_OR_RETURN(const int64_t wide_id, node.Integer(0, kMaxTokenId));
    const auto id = static_cast<int32_t>(wide_id);
    NSA_RETURN_IF_ERROR(Claim(id, spelling, vocab));
    ids_[spelling] = id;
    // A spelling outside the alphabet is text of its own, which no merging of bytes reaches.
    const std::optional<std::string> bytes = BytesOfSpelling(spelling);
    file_->spec.tokens[id] = {bytes.value_or(spelling), bytes.has_value()};
  }
  return absl::OkStatus();
}

absl::Status Builder::AddAdded(const std::vector<AddedToken>& tokens) {
  const JsonNode list(nullptr, "added_tokens");
  for (const AddedToken& token : tokens) {
    const auto known = ids_.find(token.content);
    if (known == ids_.end()) {
      NSA_RETURN_IF_ERROR(Claim(token.id, token.content, list));
      ids_[token.content] = token.id;
    } else if (known->second != token.id) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens: ", Quoted(token.content),
                                                     " has id ", token.id, ", elsewhere ",
                                                     known->second));
    }
    BpeSpec::Token& entry = file_->spec.tokens[token.id];
    if (token.is_special) {
      entry = {};
      file_->control_tokens.push_back({token.content, token.id});
    } else if (entry.bytes != token.content) {
      // The content is plain text; in the byte alphabet of a vocabulary it may read differently.
      entry = {token.content, /*is_encodable=*/false};
    }
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.token < b.token; };
  std::sort(file_->control_tokens.begin(), file_->control_tokens.end(), by_id);
  return absl::OkStatus();
}

absl::StatusOr<int32_t> Builder::IdOf(const std::string& spelling, const JsonNode& node) const {
  const auto id = ids_.find(spelling);
  if (id != ids_.end()) return id->second;
  return absl::InvalidArgumentError(
      absl::StrCat(node.path(), ": the vocabulary has no token ", Quoted(spelling)));
}

absl::Status Builder::AddMerge(const JsonNode& node, const std::string& left,
                               const std::string& right) {
  BpeMerge merge{};
  NSA_ASSIGN_OR_RETURN(merge.left, IdOf(left, node));
  NSA_ASSIGN_OR_RETURN(merge.right, IdOf(right, node));
  NSA_ASSIGN_OR_RETURN(merge.result, IdOf(left + right, node));
  file_->spec.merges.push_back(merge);
  return absl::OkStatus();
}

// A merge is "a b" or ["a", "b"].
absl::Status Builder::AddMerges(const JsonNode& merges) {
  if (merges.is_absent()) return merges.Invalid("a list");
  NSA_ASSIGN_OR_RETURN(const auto nodes, merges.Elements());
  for (const JsonNode& node : nodes) {
    const nlohmann::json& value = node.value();
    if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
      NSA_RETURN_IF_ERROR(AddMerge(node, value[0].get<std::string>(), value[1].get<std::string>()));
      continue;
    }
    const std::string text = value.is_string() ? value.get<std::string>() : std::string();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return node.Invalid("two tokens, as a list or with one space between");
    }
    NSA_RETURN_IF_ERROR(AddMerge(node, text.substr(0, space), text.substr(space + 1)));
  }
  return absl::OkStatus();
}

// Options that would change the tokens and are not implemented.
absl::Status CheckOptions(const JsonNode& model) {
  const JsonNode type = model.Member("type");  // the oldest files have none
  if (!type.is_absent() && type.value() != "BPE") return type.Unsupported("BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonNode node = model.Member(key);
    if (node.is_absent()) continue;
    const auto* text = node.value().get_ptr<const std::string*>();
    if (text == nullptr || !text->empty()) return node.Unsupported("null");
  }
  const JsonNode dropout = model.Member("dropout");
  if (!dropout.is_absent() && dropout.value() != 0) return dropout.Unsupported("null");
  const JsonNode fallback = model.Member("byte_fallback");
  NSA_ASSIGN_OR_RETURN(const bool falls_back, fallback.Bool(false));
  return falls_back ? fallback.Unsupported("false, with the byte alphabet") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<BpeFile> ParseBpeFile(const JsonNode& model, const std::vector<AddedToken>& added) {
  BpeFile file;
  if (model.is_absent()) return model.Invalid("an object");
  NSA_RETURN_IF_ERROR(CheckOptions(model));
  NSA_ASSIGN_OR_RETURN(file.spec.ignore_merges, model.Member("ignore_merges").Bool(false));
  Builder builder(&file);
  NSA_RETURN_IF_ERROR(builder.AddVocabulary(model.Member("vocab")));
  NSA_RETURN_IF_ERROR(builder.AddMerges(model.Member("merges")));
  NSA_RETURN_IF_ERROR(builder.AddAdded(added));
  return file;
}

}  // namespace nsa::hf
