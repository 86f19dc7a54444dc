#pragma once
// The route table, and the handler that serves it.

#include <cstdint>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/endpoints.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"

namespace nsa {

enum class RouteAccess : uint8_t {
  kKey,  // wants an API key where there are keys
  // What probes and scrapers read: open unless HttpAccess says otherwise, and answered beyond the
  // limit of connections.
  kProbe,
  kConsole,  // open; not there at all without ApiContext::serves_console
};

struct Route {
  absl::string_view method;  // GET routes answer HEAD too
  absl::string_view path;    // "{...}" at the end stands for one or more characters
  Endpoint endpoint;
  RouteAccess access = RouteAccess::kKey;
  bool needs_model = true;  // false: answered while the model is loaded, too
  bool tokenizes = false;   // and nothing else: Lane::kTokenize
};

std::span<const Route> Routes();

// Answers every request: checks the API key (not of OPTIONS, with which browsers ask beforehand),
// finds the route, checks method and media type (POST takes JSON only), and calls the endpoint.
// OPTIONS lists a path's methods. `api` must outlive the handler.
HttpHandler MakeApiHandler(const ApiContext* api);

// What the server asks about a request before its body is there, and adds to its own refusals: the
// same checks, and the headers that browsers want. `api` must outlive the server.
void SetApiHooks(const ApiContext* api, HttpOptions* options);

}  // namespace nsa
