#pragma once
// The safetensors format: 8 bytes of header length (little-endian), a JSON header, the tensors'
// bytes one after another. Everything in a file is checked here; what these functions return can be
// used without further checks.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/dtype.h"

namespace nsa {

struct SafetensorsEntry {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;      // 1 to 4 axes
  std::span<const uint8_t> bytes;  // inside the file; may be unaligned
};
// By tensor name.
using SafetensorsTable = std::map<std::string, SafetensorsEntry>;

// The tensors of the file whose content is `file`; the entries point into it. INVALID_ARGUMENT
// names `file_name`, the tensor and what is wrong: a header length beyond the file or
// kMaxHeaderBytes, bad JSON, a name that occurs twice, an unknown dtype, a shape that does not fit
// its offsets, tensors that overlap, leave bytes unused or reach beyond the file.
absl::StatusOr<SafetensorsTable> ParseSafetensors(std::span<const uint8_t> file,
                                                  const std::string& file_name);
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

// The weight_map of a model.safetensors.index.json: tensor name -> shard's file name, which is a
// plain name in the same folder.
absl::StatusOr<std::map<std::string, std::string>> ParseShardIndex(std::string_view json_text,
                                                                   const std::string& file_name);

}  // namespace nsa
