#pragma once
// What the endpoints work with.

#include <memory>
#include <optional>
#include <string>

#include "base/byte_budget.h"
#include "server/api_keys.h"
#include "server/generation_service.h"
#include "server/http/cors.h"
#include "server/http/unknown_fields.h"
#include "server/metrics/metrics.h"

namespace nsa {

// Who may call and read over HTTP.
struct HttpAccess {
  std::optional<ApiKeys> keys;  // absent: everybody
  bool protect_probes = false;  // health and metrics want a key too
  CorsPolicy cors;
};

// Outlives the server; so do the things it points to.
struct ApiContext {
  GenerationService* service = nullptr;  // null: the model is still being loaded
  const Metrics* metrics = nullptr;      // likewise
  std::string version;                   // of the server
  std::string fingerprint;               // system_fingerprint: changes when server or model do
  HttpAccess access;
  // Bytes of answers that are not streamed, while they are collected and sent; null: no limit.
  std::shared_ptr<ByteBudget> whole_answers;
  UnknownFields unknown_fields = UnknownFields::kIgnored;  // of requests
  bool serves_console = true;                              // else its routes do not exist
};

ApiContext MakeApiContext(GenerationService* service, const Metrics* metrics, std::string version);

}  // namespace nsa
