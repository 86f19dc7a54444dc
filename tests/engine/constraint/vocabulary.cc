#include "tests/engine/constraint/vocabulary.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/check.h"

namespace nsa {
namespace {

const char* const kPieces[] = {"{\"",      "\"}",     "\":",       "\": ",     "\",",
                               "\", \"",   "\"]",     "[\"",       "{}",       "[]",
                               "}}",       "]}",      "},",        "}, {",     "],",
                               "\": \"",   "\": {\"", "\n",        "\n  ",     "\n    ",
                               "  ",       "\\\"",    "\\n",       "\\u00",    "true",
                               "false",    "null",    " true",     " null",    "0",
                               "00",       "12",      ".5",        "-1",       "e+",
                               "1e3",      ":",       "\"a",       "\"ab",     "name",
                               "\"name\"", "\xC3",    "\xC3\xA9",  "\xE2\x82", "\xE2\x82\xAC",
                               "\x82\xAC", "\xAC\"",  "a\xF0\x9F", "\x98\x80", "\xF0\x9F\x98\x80",
                               "\xA9\xE2", "2024-",   "-02-29",    "@",        ".com",
                               "://",      "\t",      "\r\n",      "\x7F",     "\xE2\x80\xA8"};

const char* const kOddEnds[] = {
    "\"", "\n", "\n\n", "\\", "\":", "\",", "\t", "\r\n", "\xE2\x80", "\xF0"};

std::string RandomWord(std::mt19937_64* random) {
  std::string word = (*random)() % 2 == 0 ? " " : "";
  const uint64_t num_letters = 1 + (*random)() % 9;
  for (uint64_t i = 0; i < num_letters; ++i) {
    word += static_cast<char>('a' + (*random)() % 26);
    if ((*random)() % 40 == 0) word += "\xC3\xBC";
    if ((*random)() % 90 == 0) word += "\xE4\xB8\xAD";
    if ((*random)() % 60 == 0) word += static_cast<char>(' ' + (*random)() % 94);
  }
  // As many tokens as in a vocabulary that knows source code have a quote, a line end or the like.
  if ((*random)() % 16 == 0) word += kOddEnds[(*random)() % std::size(kOddEnds)];
  if ((*random)() % 10 == 0) word[word[0] == ' ' ? 1 : 0] -= 'a' - 'A';
  return word;
}

bool Closes(const std::string& bytes) {
  return !bytes.empty() && (bytes[0] == '"' || bytes[0] == '}' || bytes[0] == ']');
}

int32_t Choose(const std::vector<int32_t>& allowed, const CompiledConstraint& constraint,
               bool prefers_end, std::mt19937_64* random) {
  std::vector<int32_t> closing;
  for (const int32_t token : allowed) {
    if (constraint.tokens().is_eos(token))
      return prefers_end || (*random)() % 4 == 0 ? token : allowed[(*random)() % allowed.size()];
    if (Closes(constraint.tokens().bytes(token))) closing.push_back(token);
  }
  if (prefers_end && !closing.empty()) return closing[(*random)() % closing.size()];
  return allowed[(*random)() % allowed.size()];
}

}  // namespace

Vocabulary::Vocabulary(int64_t num_tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  bytes.emplace_back("</s>");
  bytes.emplace_back("<end>");
  bytes.emplace_back("");
  for (const char* piece : kPieces) bytes.emplace_back(piece);
  std::set<std::string> known(bytes.begin(), bytes.end());
  while (static_cast<int64_t>(bytes.size()) < num_tokens) {
    std::string word = RandomWord(&random);
    if (known.insert(word).second) bytes.push_back(std::move(word));
  }
  table = TokenTable::Create(bytes, std::vector<int32_t>{kEos, kOtherEos}).value();
}

std::vector<int32_t> AllowedTokens(ConstraintState* state, int64_t vocab_size) {
  std::vector<uint32_t> words((vocab_size + 31) / 32, ~0U);
  const absl::Status status = state->FillMask(words);
  NSA_CHECK(status.ok()) << status.ToString();
  std::vector<int32_t> tokens;
  for (size_t word = 0; word < words.size(); ++word) {
    for (int bit = 0; bit < 32; ++bit) {
      if ((words[word] >> bit & 1) != 0) tokens.push_back(static_cast<int32_t>(word * 32 + bit));
    }
  }
  return tokens;
}

std::optional<std::string> RandomOutput(const CompiledConstraint& constraint, ConstraintState state,
                                        std::mt19937_64* random, int64_t max_tokens) {
  std::string text;
  for (int64_t i = 0; i < max_tokens; ++i) {
    const std::vector<int32_t> allowed = AllowedTokens(&state, constraint.tokens().vocab_size());
    NSA_CHECK(!allowed.empty()) << "nothing may follow " << text;
    const bool prefers_end = (*random)() % 40 < static_cast<uint64_t>(i);
    const int32_t token = Choose(allowed, constraint, prefers_end, random);
    NSA_CHECK(state.Advance(token)) << "the mask allowed token " << token << " after " << text;
    if (state.has_ended()) return text;
    text += constraint.tokens().bytes(token);
  }
  return std::nullopt;
}

bool Accepts(ConstraintState state, const Vocabulary& vocabulary, std::string_view text,
             bool greedy) {
  std::map<std::string_view, int32_t> tokens;
  if (greedy) {
    for (size_t i = 0; i < vocabulary.bytes.size(); ++i) {
      if (!vocabulary.table->is_eos(static_cast<int32_t>(i))) {
        tokens.emplace(vocabulary.bytes[i], static_cast<int32_t>(i));
      }
    }
  }
  constexpr size_t kLongest = 24;
  for (size_t i = 0; i < text.size();) {
    int32_t token = static_cast<uint8_t>(text[i]);
    size_t num_bytes = 1;
    for (size_t length = std::min(kLongest, text.size() - i); greedy && length > 1; --length) {
      const auto it = tokens.find(text.substr(i, length));
      if (it == tokens.end()) continue;
      token = it->second;
      num_bytes = length;
      break;
    }
    if (!state.Advance(token)) return false;
    i += num_bytes;
  }
  return state.Advance(Vocabulary::kEos);
}

}  // namespace nsa
