#include "server/http/api_context.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

// FNV-1a: the same in every build.
uint64_t HashOf(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

ApiContext MakeApiContext(GenerationService* service, const Metrics* metrics, std::string version) {
  const ModelInfo& model = service->model();
  const std::string identity = absl::StrCat(version, "\n", model.name, "\n",
                                            model.config.architecture, "\n", model.attention);
  return {.service = service,
          .metrics = metrics,
          .version = std::move(version),
          .fingerprint = absl::StrCat("fp_", absl::Hex(HashOf(identity), absl::kZeroPad16))};
}

}  // namespace nsa
