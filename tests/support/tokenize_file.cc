// Encodes texts with the tokenizer.json of a folder: tokenize_file FOLDER INPUT OUTPUT [special].
// INPUT is records of a 32-bit byte count and a text, OUTPUT of a 32-bit token count (0xFFFFFFFF:
// refused) and 32-bit ids. `special` adds the special tokens. Prints bytes, tokens and seconds.

#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/text/hf/hf_tokenizer.h"
#include "engine/text/text_config.h"

namespace nsa {
namespace {

constexpr uint32_t kRefused = 0xFFFFFFFF;

std::vector<std::string> ReadTexts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> texts;
  for (size_t i = 0; i + sizeof(uint32_t) <= bytes.size();) {
    uint32_t num_bytes = 0;
    std::memcpy(&num_bytes, bytes.data() + i, sizeof(num_bytes));
    texts.push_back(bytes.substr(i + sizeof(num_bytes), num_bytes));
    i += sizeof(num_bytes) + num_bytes;
  }
  return texts;
}

void Append(const void* words, size_t num_words, std::ofstream* file) {
  file->write(static_cast<const char*>(words),
              static_cast<std::streamsize>(num_words * sizeof(uint32_t)));
}

int Run(const std::string& folder, const std::string& input, const std::string& output,
        bool add_special_tokens) {
  const auto config = LoadTokenizerConfig(folder);
  if (!config.ok()) return std::cerr << config.status() << "\n", 1;
  const auto tokenizer = LoadHfTokenizer(folder + "/tokenizer.json", *config);
  if (!tokenizer.ok()) return std::cerr << tokenizer.status() << "\n", 1;
  const std::vector<std::string> texts = ReadTexts(input);
  std::ofstream file(output, std::ios::binary);
  size_t num_bytes = 0;
  size_t num_tokens = 0;
  std::chrono::duration<double> elapsed{};
  for (const std::string& text : texts) {
    const auto start = std::chrono::steady_clock::now();
    const auto tokens = (*tokenizer)->Encode(text, add_special_tokens);
    elapsed += std::chrono::steady_clock::now() - start;
    num_bytes += text.size();
    const uint32_t count = tokens.ok() ? static_cast<uint32_t>(tokens->size()) : kRefused;
    Append(&count, 1, &file);
    if (!tokens.ok()) continue;
    Append(tokens->data(), tokens->size(), &file);
    num_tokens += tokens->size();
  }
  std::cout << num_bytes << " " << num_tokens << " " << elapsed.count() << "\n";
  return 0;
}

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: tokenize_file FOLDER INPUT OUTPUT [special]\n";
    return 2;
  }
  return nsa::Run(argv[1], argv[2], argv[3], argc > 4 && std::string(argv[4]) == "special");
}
