#include "engine/attention/registry.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/attention/dense_attention.h"
#include "engine/attention/nsa_attention.h"

namespace nsa {
namespace {

struct Variant {
  const char* name;
  bool needs_sparse_settings;
  std::unique_ptr<Attention> (*make)(const ModelConfig& config, const AttentionOptions& options);
};

constexpr Variant kVariants[] = {
    {"nsa", true, NsaAttention::Make},
    {"full", false, DenseAttentionVariant::Make},
};

}  // namespace

std::string NativeAttention(const ModelConfig& config) { return config.nsa ? "nsa" : "full"; }

absl::StatusOr<std::unique_ptr<Attention>> MakeAttention(const std::string& name,
                                                         const ModelConfig& config,
                                                         const AttentionOptions& options) {
  std::vector<std::string> known;
  for (const Variant& variant : kVariants) {
    known.push_back(variant.name);
    if (name != variant.name) continue;
    if (variant.needs_sparse_settings && !config.nsa) {
      return absl::InvalidArgumentError(absl::StrCat("attention '", name,
                                                     "' needs sparse settings, which ",
                                                     config.architecture, " does not have"));
    }
    return variant.make(config, options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("attention is '", name, "'; allowed: ", absl::StrJoin(known, ", ")));
}

}  // namespace nsa
