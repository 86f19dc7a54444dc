#pragma once
// Fields of the API that would change the result and are not supported: refused, never ignored.

#include "server/http/json_reader.h"

namespace nsa {

// Records an error for the first such field whose value is not the neutral one.
void RefuseUnsupportedFields(JsonFields* fields);

}  // namespace nsa
