// Thousands of damaged files, the same ones in every run: none may crash, and what is accepted must
// keep to the file.

#include <random>

#include "engine/config.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/safetensors.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_bytes.h"

namespace nsa {
namespace {

constexpr int kNumMutations = 20000;

const std::string kHeader =
    R"({"__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}})";

// Pieces that damage in ways that single bytes rarely reach.
const char* const kPieces[] = {"18446744073709551615",
                               "-1",
                               "[",
                               "]",
                               "{",
                               "}",
                               "\"",
                               ",",
                               ":",
                               "null",
                               "1e308",
                               "\\u0000",
                               "\"a\"",
                               "9223372036854775808",
                               "0",
                               "[[[[",
                               "\"shape\"",
                               "\"dtype\"",
                               "\xf0\x9f",
                               "24",
                               "32"};

std::string Mutate(std::string text, std::mt19937& random) {
  const int num_changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < num_changes; ++i) {
    const size_t at = text.empty() ? 0 : random() % text.size();
    const std::string piece = kPieces[random() % std::size(kPieces)];
    switch (random() % 4) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(random());
        break;
      case 1:
        text.insert(at, piece);
        break;
      case 2:
        text.erase(at, 1 + random() % 8);
        break;
      default:
        text.replace(at, std::min(piece.size(), text.size() - at), piece);
    }
  }
  return text;
}

// Touches every byte of every tensor, so that ASan sees a span that leaves the file.
uint64_t SumOfAllBytes(const SafetensorsTable& table) {
  uint64_t sum = 0;
  for (const auto& [name, entry] : table) {
    uint64_t num_bytes = DTypeBytes(entry.dtype);
    for (int64_t extent : entry.shape) num_bytes *= extent;
    EXPECT_EQ(num_bytes, entry.bytes.size());
    for (uint8_t byte : entry.bytes) sum += byte;
  }
  return sum;
}

TEST(SafetensorsFuzzTest, DamagedHeadersNeverCrash) {
  std::mt19937 random(1);
  int num_accepted = 0;
  for (int i = 0; i < kNumMutations; ++i) {
    const std::string header = Mutate(kHeader, random);
    const std::vector<uint8_t> file = SafetensorsBytes(header, 32);
    const absl::StatusOr<SafetensorsTable> table = ParseSafetensors(file, "x");
    if (!table.ok()) continue;
    ++num_accepted;
    SumOfAllBytes(*table);
  }
  // Changes of a name or of white space are harmless; nearly everything else is refused.
  EXPECT_GT(num_accepted, 0);
  EXPECT_LT(num_accepted, kNumMutations / 4);
}

TEST(SafetensorsFuzzTest, DamagedFilesNeverCrash) {
  std::mt19937 random(2);
  const std::vector<uint8_t> original = SafetensorsBytes(kHeader, 32);
  for (int i = 0; i < kNumMutations; ++i) {
    std::vector<uint8_t> file = original;
    file[random() % 8] = static_cast<uint8_t>(random());
    file.resize(random() % (2 * file.size()));
    const absl::StatusOr<SafetensorsTable> table = ParseSafetensors(file, "x");
    if (table.ok()) SumOfAllBytes(*table);
  }
}

TEST(SafetensorsFuzzTest, DamagedShardIndexesNeverCrash) {
  std::mt19937 random(3);
  const std::string index =
      R"({"metadata": {"total_size": 3}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})";
  for (int i = 0; i < kNumMutations; ++i) {
    const auto shards = ParseShardIndex(Mutate(index, random), "x");
    if (!shards.ok()) continue;
    for (const auto& [name, file] : *shards) EXPECT_EQ(file.find('/'), std::string::npos);
  }
}

TEST(ConfigFuzzTest, DamagedConfigsNeverCrash) {
  std::mt19937 random(4);
  for (const char* name : {"nsa_paper", "llama_nsa", "fla_nsa", "llama"}) {
    const absl::StatusOr<MappedFile> file =
        MappedFile::Open(std::string("tests/golden/") + name + "/config.json");
    ASSERT_TRUE(file.ok()) << file.status();
    for (int i = 0; i < kNumMutations / 10; ++i) {
      const absl::StatusOr<ModelConfig> config =
          ParseModelConfig(Mutate(std::string(file->text()), random));
      if (!config.ok()) continue;
      EXPECT_EQ(config->num_heads % config->num_kv_heads, 0);
      EXPECT_EQ(static_cast<int64_t>(RopeFrequencies(*config).size()), config->d_k / 2);
    }
  }
}

}  // namespace
}  // namespace nsa
