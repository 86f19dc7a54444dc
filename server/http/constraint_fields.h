#pragma once
// The fields that say what an answer must be: response_format of OpenAI, guided_* of vLLM.

#include <string_view>

#include "server/generation_service.h"
#include "server/http/json_reader.h"

namespace nsa {

// Adds to call->constraints what the fields ask for. `body` is the text of the object that `fields`
// reads: a schema is taken from there, because the order of its members counts.
void ReadConstraintFields(std::string_view body, JsonFields* fields, GenerateCall* call);

}  // namespace nsa
