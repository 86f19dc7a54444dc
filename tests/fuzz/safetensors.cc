#include "engine/loader/safetensors.h"

#include "base/check.h"
#include "tests/engine/loader/safetensors_bytes.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {
namespace {

constexpr size_t kNumDataBytes = 32;  // behind a header alone

// Every byte of every tensor lies in the file.
void ReadAll(std::span<const uint8_t> file) {
  const auto table = ParseSafetensors(file, "fuzz");
  if (!table.ok()) return;
  for (const auto& [name, entry] : *table) {
    const uint8_t* const begin = entry.bytes.data();
    NSA_CHECK(entry.bytes.empty() ||
              (begin >= file.data() && begin + entry.bytes.size() <= file.data() + file.size()))
        << name;
    uint64_t num_bytes = DTypeBytes(entry.dtype);
    for (const int64_t extent : entry.shape) num_bytes *= static_cast<uint64_t>(extent);
    NSA_CHECK_EQ(num_bytes, entry.bytes.size());
  }
}

}  // namespace

void Safetensors(std::string_view input) {
  ReadAll({reinterpret_cast<const uint8_t*>(input.data()), input.size()});
  ReadAll(SafetensorsBytes(std::string(input), kNumDataBytes));
  (void)ParseShardIndex(input, "fuzz");
}

}  // namespace nsa::fuzz
