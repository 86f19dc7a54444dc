#pragma once
// server/http/openapi.json, which describes what the server does over HTTP. tests/integration/
// openapi_test.py compares the two.

namespace nsa {

extern const char kOpenapiText[];

}  // namespace nsa
