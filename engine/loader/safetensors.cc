#include "engine/loader/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/tensor_view.h"
#include "nlohmann/json.hpp"

namespace nsa {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxShownBytes = 200;

struct DTypeCode {
  const char* code;
  DType dtype;
};
constexpr DTypeCode kDTypeCodes[] = {{"F32", DType::kF32},
                                     {"BF16", DType::kBF16},
                                     {"F16", DType::kF16},
                                     {"I32", DType::kI32},
                                     {"U8", DType::kU8}};

absl::Status Invalid(const std::string& file_name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file_name, ": ", what));
}

absl::Status InvalidTensor(const std::string& file_name, const std::string& tensor,
                           const std::string& what) {
  return Invalid(file_name,
                 absl::StrCat("tensor '", tensor.substr(0, kMaxShownBytes), "': ", what));
}

// Parses an object in which no key occurs twice at depth 1, where the tensors' names are.
absl::StatusOr<Json> ParseObject(std::string_view text, const std::string& file_name) {
  std::set<std::string> names;
  std::optional<std::string> duplicate;
  const auto note_keys = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event != Json::parse_event_t::key || depth != 1) return true;
    const std::string& name = parsed.get_ref<const std::string&>();
    if (!names.insert(name).second && !duplicate) duplicate = name;
    return true;
  };
  Json json = Json::parse(text, note_keys, /*allow_exceptions=*/false);
  if (duplicate) return InvalidTensor(file_name, *duplicate, "occurs twice");
  if (!json.is_object()) return Invalid(file_name, "the header is not a JSON object");
  return json;
}

// The header's text, from a file whose first 8 bytes give its length.
absl::StatusOr<std::string_view> HeaderText(std::span<const uint8_t> file,
                                            const std::string& file_name) {
  if (file.size() < kLengthBytes) {
    return Invalid(file_name, absl::StrCat("has ", file.size(), " bytes, fewer than a header"));
  }
  uint64_t num_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) num_bytes |= uint64_t{file[i]} << (8 * i);
  const uint64_t limit = std::min<uint64_t>(file.size() - kLengthBytes, kMaxHeaderBytes);
  if (num_bytes > limit) {
    return Invalid(file_name, absl::StrCat("the header is said to have ", num_bytes,
                                           " bytes, more than ", limit));
  }
  return std::string_view(reinterpret_cast<const char*>(file.data()) + kLengthBytes, num_bytes);
}

// A JSON array of non-negative integers, or nothing.
std::optional<std::vector<uint64_t>> Integers(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array()) return std::nullopt;
  std::vector<uint64_t> values;
  for (const Json& value : *found) {
    if (!value.is_number_unsigned()) return std::nullopt;
    values.push_back(value.get<uint64_t>());
  }
  return values;
}

// dtype, shape and place of one tensor, with its offsets into the data section.
struct RawEntry {
  SafetensorsEntry entry;
  uint64_t begin = 0, end = 0;
};

absl::Status ReadDType(const Json& json, RawEntry& raw) {
  const auto found = json.find("dtype");
  if (found == json.end() || !found->is_string()) {
    return absl::InvalidArgumentError("has no dtype");
  }
  for (const DTypeCode& known : kDTypeCodes) {
    if (*found != known.code) continue;
    raw.entry.dtype = known.dtype;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype is ", found->get_ref<const std::string&>().substr(0, kMaxShownBytes),
                   "; supported: F32, BF16, F16, I32, U8"));
}

// Reads the shape and returns the bytes that it takes.
absl::StatusOr<uint64_t> ReadShape(const Json& json, uint64_t max_bytes, RawEntry& raw) {
  const auto shape = Integers(json, "shape");
  if (!shape) return absl::InvalidArgumentError("shape is not a list of sizes");
  if (shape->empty() || shape->size() > static_cast<size_t>(kMaxRank)) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", shape->size(), " axes; supported: 1 to ", kMaxRank));
  }
  uint64_t num_bytes = DTypeBytes(raw.entry.dtype);
  for (uint64_t extent : *shape) {
    if (extent == 0) return absl::InvalidArgumentError("shape has an empty axis");
    if (num_bytes > max_bytes / extent) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape needs more than the file's ", max_bytes, " bytes of data"));
    }
    num_bytes *= extent;
    raw.entry.shape.push_back(static_cast<int64_t>(extent));
  }
  return num_bytes;
}

absl::StatusOr<RawEntry> ReadEntry(const Json& json, uint64_t data_bytes) {
  if (!json.is_object()) return absl::InvalidArgumentError("is not described by an object");
  RawEntry raw;
  NSA_RETURN_IF_ERROR(ReadDType(json, raw));
  NSA_ASSIGN_OR_RETURN(const uint64_t num_bytes, ReadShape(json, data_bytes, raw));
  const auto offsets = Integers(json, "data_offsets");
  if (!offsets || offsets->size() != 2) {
    return absl::InvalidArgumentError("data_offsets is not a list of two offsets");
  }
  raw.begin = (*offsets)[0];
  raw.end = (*offsets)[1];
  if (raw.begin > raw.end || raw.end > data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets [", raw.begin, ", ", raw.end,
                                                   "] outside the file's ", data_bytes,
                                                   " bytes of data"));
  }
  if (raw.end - raw.begin != num_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets span ", raw.end - raw.begin,
                                                   " bytes, its shape needs ", num_bytes));
  }
  return raw;
}

struct Range {
  uint64_t begin = 0, end = 0;
  std::string name;
  bool operator<(const Range& other) const {
    return begin != other.begin ? begin < other.begin : end < other.end;
  }
};

// The tensors must tile the data section: each begins where the one before it ends.
absl::Status CheckTiling(std::vector<Range> ranges, uint64_t data_bytes,
                         const std::string& file_name) {
  std::sort(ranges.begin(), ranges.end());
  uint64_t expected = 0;
  for (const Range& range : ranges) {
    if (range.begin != expected) {
      const char* what = range.begin < expected ? "overlaps the tensor before it, which ends at "
                                                : "leaves a gap after ";
      return InvalidTensor(file_name, range.name,
                           absl::StrCat("begins at ", range.begin, " and ", what, expected));
    }
    expected = range.end;
  }
  if (expected == data_bytes) return absl::OkStatus();
  return Invalid(file_name, absl::StrCat("the tensors end at ", expected, " of ", data_bytes,
                                         " bytes of data"));
}

absl::Status CheckMetadata(const Json& metadata, const std::string& file_name) {
  const bool is_text =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const Json& value) { return value.is_string(); });
  return is_text ? absl::OkStatus() : Invalid(file_name, "__metadata__ is not a map of strings");
}

}  // namespace

absl::StatusOr<SafetensorsTable> ParseSafetensors(std::span<const uint8_t> file,
                                                  const std::string& file_name) {
  NSA_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(file, file_name));
  NSA_ASSIGN_OR_RETURN(const Json header, ParseObject(text, file_name));
  const std::span<const uint8_t> data = file.subspan(kLengthBytes + text.size());
  SafetensorsTable table;
  std::vector<Range> ranges;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") {
      NSA_RETURN_IF_ERROR(CheckMetadata(json, file_name));
      continue;
    }
    absl::StatusOr<RawEntry> raw = ReadEntry(json, data.size());
    if (!raw.ok()) return InvalidTensor(file_name, name, std::string(raw.status().message()));
    raw->entry.bytes = data.subspan(raw->begin, raw->end - raw->begin);
    ranges.push_back({raw->begin, raw->end, name});
    table[name] = std::move(raw->entry);
  }
  NSA_RETURN_IF_ERROR(CheckTiling(std::move(ranges), data.size(), file_name));
  return table;
}

absl::StatusOr<std::map<std::string, std::string>> ParseShardIndex(std::string_view json_text,
                                                                   const std::string& file_name) {
  NSA_ASSIGN_OR_RETURN(const Json root, ParseObject(json_text, file_name));
  const auto weight_map = root.find("weight_map");
  if (weight_map == root.end() || !weight_map->is_object() || weight_map->empty()) {
    return Invalid(file_name, "weight_map is not a map from tensor names to files");
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, file] : weight_map->items()) {
    if (!file.is_string()) return InvalidTensor(file_name, name, "its file is not a string");
    const std::string& shard = file.get_ref<const std::string&>();
    // A plain name: the index must not reach outside the model's folder.
    if (shard.empty() || shard.front() == '.' || shard.find('/') != std::string::npos ||
        shard.find('\0') != std::string::npos) {
      return InvalidTensor(file_name, name,
                           absl::StrCat("its file '", shard.substr(0, kMaxShownBytes),
                                        "' is not a plain file name"));
    }
    shards[name] = shard;
  }
  return shards;
}

}  // namespace nsa
