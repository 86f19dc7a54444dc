#include "engine/loader/weights.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace nsa {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxShownProblems = 5;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

TensorView MakeView(const void* data, const SafetensorsEntry& entry) {
  // A view is mutable; the mapping behind it is not, and nothing writes to weights.
  void* writable = const_cast<void*>(data);
  const std::vector<int64_t>& shape = entry.shape;
  switch (shape.size()) {
    case 1:
      return {writable, entry.dtype, {shape[0]}};
    case 2:
      return {writable, entry.dtype, {shape[0], shape[1]}};
    case 3:
      return {writable, entry.dtype, {shape[0], shape[1], shape[2]}};
    default:
      return {writable, entry.dtype, {shape[0], shape[1], shape[2], shape[3]}};
  }
}

}  // namespace

absl::StatusOr<Weights> Weights::Open(const std::string& folder) {
  Weights weights;
  absl::StatusOr<MappedFile> index = MappedFile::Open(absl::StrCat(folder, "/", kIndexFile));
  if (index.ok()) {
    NSA_RETURN_IF_ERROR(weights.OpenShards(folder, *index));
    return weights;
  }
  if (!absl::IsNotFound(index.status())) return index.status();
  NSA_RETURN_IF_ERROR(weights.AddFile(absl::StrCat(folder, "/", kSingleFile)));
  return weights;
}

absl::Status Weights::OpenShards(const std::string& folder, const MappedFile& index) {
  NSA_ASSIGN_OR_RETURN(const auto shard_of, ParseShardIndex(index.text(), kIndexFile));
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    NSA_RETURN_IF_ERROR(AddFile(absl::StrCat(folder, "/", shard)));
    for (const auto& [name, indexed] : shard_of) {
      if (indexed == shard && !tensors_.contains(name)) {
        return absl::InvalidArgumentError(absl::StrCat(
            shard, ": tensor '", name, "' is missing, but ", kIndexFile, " puts it there"));
      }
    }
  }
  for (const auto& [name, tensor] : tensors_) {
    if (!shard_of.contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexFile, ": tensor '", name, "' of a shard is not listed"));
    }
  }
  return absl::OkStatus();
}

absl::Status Weights::AddFile(const std::string& path) {
  NSA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  NSA_ASSIGN_OR_RETURN(SafetensorsTable table, ParseSafetensors(file.bytes(), FileName(path)));
  for (auto& [name, entry] : table) {
    if (!tensors_.emplace(name, Tensor{std::move(entry)}).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(FileName(path), ": tensor '", name, "' is in another shard as well"));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

TensorView Weights::View(const SafetensorsEntry& entry) {
  const uint8_t* data = entry.bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % DTypeBytes(entry.dtype) == 0) {
    return MakeView(data, entry);
  }
  realigned_.push_back(std::make_unique<float[]>(entry.bytes.size() / sizeof(float) + 1));
  std::memcpy(realigned_.back().get(), data, entry.bytes.size());
  return MakeView(realigned_.back().get(), entry);
}

TensorView Weights::Take(const std::string& name, const std::vector<int64_t>& shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    problems_.push_back(absl::StrCat("'", name, "' ", ShapeText(shape), " is missing"));
    return {};
  }
  found->second.taken = true;
  const SafetensorsEntry& entry = found->second.entry;
  if (entry.shape != shape) {
    problems_.push_back(absl::StrCat("'", name, "' is ", ShapeText(entry.shape),
                                     ", config.json makes it ", ShapeText(shape)));
    return {};
  }
  if (entry.dtype == DType::kI32 || entry.dtype == DType::kU8) {
    problems_.push_back(absl::StrCat("'", name, "' holds ", std::string(DTypeName(entry.dtype)),
                                     "; supported: f32, bf16, f16"));
    return {};
  }
  return View(entry);
}

std::vector<int64_t> Weights::ShapeOf(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? std::vector<int64_t>{} : found->second.entry.shape;
}

std::optional<DType> Weights::DTypeOf(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  return found->second.entry.dtype;
}

absl::Status Weights::Finish(const std::vector<std::string>& ignorable) const {
  std::vector<std::string> problems = problems_;
  for (const auto& [name, tensor] : tensors_) {
    const bool is_ignorable = std::any_of(
        ignorable.begin(), ignorable.end(),
        [&name = name](const std::string& ending) { return absl::EndsWith(name, ending); });
    if (!tensor.taken && !is_ignorable) {
      problems.push_back(absl::StrCat("'", name, "' is not part of this architecture"));
    }
  }
  if (problems.empty()) return absl::OkStatus();
  const size_t num_problems = problems.size();
  problems.resize(std::min(num_problems, kMaxShownProblems));
  return absl::InvalidArgumentError(
      absl::StrCat("the weights do not fit config.json: ", absl::StrJoin(problems, "; "),
                   num_problems > problems.size()
                       ? absl::StrCat("; and ", num_problems - problems.size(), " more")
                       : std::string()));
}

int64_t Weights::num_bytes() const {
  int64_t num_bytes = 0;
  for (const MappedFile& file : files_) num_bytes += static_cast<int64_t>(file.bytes().size());
  return num_bytes;
}

}  // namespace nsa
