#pragma once
// What a parsed request goes through before the engine, for the targets of both transports.

#include "server/generation_service.h"

namespace nsa::fuzz {

// The service's checks, template and tokenizer. Aborts if a call that passes them could not run.
void PrepareCalls(std::span<const GenerateCall> calls);

}  // namespace nsa::fuzz
