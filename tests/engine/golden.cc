#include "tests/engine/golden.h"

#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/safetensors.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

template <typename T>
std::vector<T> Values(const SafetensorsTable& table, const std::string& name) {
  const std::span<const uint8_t> bytes = table.at(name).bytes;
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

Golden ReadGolden(const std::string& name) {
  Golden golden{.folder = "tests/golden/" + name};
  const absl::StatusOr<MappedFile> file = MappedFile::Open(golden.folder + "/golden.safetensors");
  NSA_CHECK(file.ok()) << file.status();
  const absl::StatusOr<SafetensorsTable> table =
      ParseSafetensors(file->bytes(), "golden.safetensors");
  NSA_CHECK(table.ok()) << table.status();
  golden.tokens = Values<int32_t>(*table, "tokens");
  golden.positions = Values<int32_t>(*table, "positions");
  golden.num_prompt_tokens = Values<int32_t>(*table, "prompt").at(0);
  golden.greedy = Values<int32_t>(*table, "greedy");
  const std::vector<float> flat = Values<float>(*table, "logits");
  const size_t vocab = flat.size() / golden.positions.size();
  for (size_t i = 0; i < golden.positions.size(); ++i) {
    golden.logits.emplace_back(flat.begin() + i * vocab, flat.begin() + (i + 1) * vocab);
  }
  return golden;
}

std::string CopyModel(const std::string& name) {
  static int num_copies = 0;
  std::string copy =
      testing::TempDir() + "model_" + std::to_string(getpid()) + "_" + std::to_string(num_copies++);
  std::filesystem::copy("tests/golden/" + name, copy);
  return copy;
}

}  // namespace nsa
