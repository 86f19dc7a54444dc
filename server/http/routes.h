#pragma once
// The route table, and the handler that serves it.

#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/endpoints.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"

namespace nsa {

struct Route {
  absl::string_view method;  // GET routes answer HEAD too
  absl::string_view path;    // "{...}" at the end stands for one or more characters
  Endpoint endpoint;
  // What probes and scrapers read: open without an API key unless HttpAccess says otherwise.
  bool is_probe = false;
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
