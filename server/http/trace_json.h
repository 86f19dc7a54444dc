#pragma once
// The field nsa_trace of a streamed choice (docs/api.md).

#include "nlohmann/json.hpp"
#include "server/generation_service.h"

namespace nsa {

// One entry per token of the delta, which has traces.
nlohmann::ordered_json TraceJson(const GenerateEvent& delta);

}  // namespace nsa
