#include "engine/model/registry.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

struct Architecture {
  const char* name;  // architectures[0] of config.json
  LoadFunction* load;
};

constexpr Architecture kArchitectures[] = {
    {"NsaForCausalLM", LoadNsaPaper},
    {"LlamaNSAForCausalLM", LoadLlamaNsa},
    {"NSAForCausalLM", LoadFlaNsa},
    {"LlamaForCausalLM", LoadLlama},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeModel(ModelConfig config, const ModelOptions& options,
                                                 Weights& weights) {
  for (const Architecture& architecture : kArchitectures) {
    if (config.architecture == architecture.name) {
      return architecture.load(std::move(config), options, weights);
    }
  }
  return absl::UnimplementedError(absl::StrCat("no model is called ", config.architecture));
}

}  // namespace nsa
