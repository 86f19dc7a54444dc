#pragma once
// The route table, and the handler that serves it.

#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/endpoints.h"
#include "server/http/http_message.h"

namespace nsa {

struct Route {
  absl::string_view method;  // GET routes answer HEAD too
  absl::string_view path;    // "{...}" at the end stands for one or more characters
  Endpoint endpoint;
};

std::span<const Route> Routes();

// Answers every request: finds the route, checks method and media type (POST takes JSON only), and
// calls the endpoint. OPTIONS lists a path's methods. `api` must outlive the handler.
HttpHandler MakeApiHandler(const ApiContext* api);

}  // namespace nsa
