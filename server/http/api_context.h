#pragma once
// What the endpoints work with.

#include <string>

#include "server/generation_service.h"
#include "server/metrics/metrics.h"

namespace nsa {

// Outlives the server; so do the things it points to.
struct ApiContext {
  GenerationService* service = nullptr;
  const Metrics* metrics = nullptr;
  std::string version;      // of the server
  std::string fingerprint;  // system_fingerprint: changes when server or model do
};

ApiContext MakeApiContext(GenerationService* service, const Metrics* metrics, std::string version);

}  // namespace nsa
