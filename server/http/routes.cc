#include "server/http/routes.h"

#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/error_detail.h"
#include "server/http/errors.h"
#include "server/lanes.h"

namespace nsa {
namespace {

constexpr Route kRoutes[] = {
    {"POST", "/v1/completions", &HandleCompletions},
    {"POST", "/v1/chat/completions", &HandleChatCompletions},
    {"GET", "/v1/models", &HandleListModels},
    {"GET", "/v1/models/{id}", &HandleGetModel},
    {"POST", "/tokenize", &HandleTokenize, RouteAccess::kKey, true, /*tokenizes=*/true},
    {"POST", "/detokenize", &HandleDetokenize, RouteAccess::kKey, true, /*tokenizes=*/true},
    {"GET", "/tokenizer_info", &HandleTokenizerInfo},
    {"GET", "/health", &HandleHealth, RouteAccess::kProbe, /*needs_model=*/false},
    {"GET", "/health/ready", &HandleReady, RouteAccess::kProbe},
    {"GET", "/version", &HandleVersion, RouteAccess::kKey, /*needs_model=*/false},
    {"GET", "/openapi.json", &HandleOpenapi, RouteAccess::kKey, /*needs_model=*/false},
    {"GET", "/metrics", &HandleMetrics, RouteAccess::kProbe},
    {"GET", "/", &HandleConsole, RouteAccess::kConsole, /*needs_model=*/false},
    {"GET", "/console/{file}", &HandleConsole, RouteAccess::kConsole, /*needs_model=*/false},
};

bool PathMatches(absl::string_view pattern, absl::string_view path) {
  const size_t brace = pattern.find('{');
  if (brace == absl::string_view::npos) return pattern == path;
  return path.size() > brace && absl::StartsWith(path, pattern.substr(0, brace));
}

bool IsServed(const ApiContext& api, const Route& route) {
  return route.access != RouteAccess::kConsole || api.serves_console;
}

// The methods that a path answers to; none: no such path.
std::vector<absl::string_view> AllowedMethods(const ApiContext& api, absl::string_view path) {
  std::vector<absl::string_view> methods;
  for (const Route& route : kRoutes) {
    if (!IsServed(api, route) || (path != "*" && !PathMatches(route.path, path))) continue;
    methods.push_back(route.method);
    if (route.method == "GET") methods.push_back("HEAD");
  }
  if (path == "*") return {"GET", "HEAD", "POST", "OPTIONS"};
  if (!methods.empty()) methods.push_back("OPTIONS");
  return methods;
}

const Route* FindRoute(const ApiContext& api, const HttpRequest& request) {
  const absl::string_view method = request.method;
  const absl::string_view served_as = method == "HEAD" ? "GET" : method;
  for (const Route& route : kRoutes) {
    if (route.method == served_as && PathMatches(route.path, request.path) &&
        IsServed(api, route)) {
      return &route;
    }
  }
  return nullptr;
}

// Empty if the body is plain JSON in UTF-8; else what is wrong.
std::string MediaTypeProblem(const HttpRequest& request) {
  if (request.Header("Content-Encoding") != nullptr) {
    return "Content-Encoding is not supported; send the body as it is";
  }
  const std::string* type = request.Header("Content-Type");
  if (type == nullptr) return "Content-Type is missing; application/json is needed";
  const std::vector<absl::string_view> parts = absl::StrSplit(*type, ';');
  if (!absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(parts[0]), "application/json")) {
    return absl::StrCat("Content-Type is '", type->substr(0, 100), "'; application/json is needed");
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    absl::string_view parameter = absl::StripAsciiWhitespace(parts[i]);
    if (!absl::StartsWithIgnoreCase(parameter, "charset=")) continue;
    parameter.remove_prefix(absl::string_view("charset=").size());
    if (!absl::EqualsIgnoreCase(parameter, "utf-8") &&
        !absl::EqualsIgnoreCase(parameter, "\"utf-8\"")) {
      return absl::StrCat("charset is '", parameter.substr(0, 100), "'; utf-8 is needed");
    }
  }
  return "";
}

void SendNoRoute(const ApiContext& api, const HttpRequest& request, HttpResponder* responder) {
  const std::vector<absl::string_view> methods = AllowedMethods(api, request.path);
  if (methods.empty()) {
    return responder->Send(ErrorResponse(ProtocolError(
        404, absl::StrCat("there is no ", request.method, " ", request.path.substr(0, 200)))));
  }
  const std::string allow = absl::StrJoin(methods, ", ");
  HttpResponse response;
  if (request.method == "OPTIONS") {
    response.status = 204;
    response.content_type = "";
    api.access.cors.AnswerPreflight(request, allow, &response.headers);
  } else {
    response = ErrorResponse(ProtocolError(
        405, absl::StrCat(request.path, " answers to ", allow, ", not to ", request.method)));
  }
  response.headers.emplace_back("Allow", allow);
  responder->Send(std::move(response));
}

bool IsOpen(const HttpAccess& access, const Route* route) {
  if (route == nullptr) return false;
  return route->access == RouteAccess::kConsole ||
         (route->access == RouteAccess::kProbe && !access.protect_probes);
}

// The caller's name; UNAUTHENTICATED where a key is needed and not there. A path without a route
// needs one too, so that nothing is learnt without.
absl::StatusOr<std::string> CheckKey(const HttpAccess& access, const Route* route,
                                     const HttpRequest& request) {
  if (!access.keys.has_value() || request.method == "OPTIONS" || IsOpen(access, route)) return "";
  const std::string* header = request.Header("Authorization");
  return access.keys->CheckAuthorization(
      header == nullptr ? std::nullopt : std::optional<absl::string_view>(*header));
}

// True if the request's head is in order and its endpoint reads the body.
bool NeedsBody(const ApiContext& api, const HttpRequest& head) {
  const Route* route = FindRoute(api, head);
  return route != nullptr && route->method == "POST" && CheckKey(api.access, route, head).ok() &&
         MediaTypeProblem(head).empty();
}

void Serve(const ApiContext& api, HttpRequest request, std::shared_ptr<HttpResponder> responder) {
  const Route* route = FindRoute(api, request);
  if (route != nullptr) responder->SetRoute(std::string(route->path));
  absl::StatusOr<std::string> caller = CheckKey(api.access, route, request);
  if (!caller.ok()) return responder->Send(ErrorResponse(ErrorFromStatus(caller.status())));
  request.caller = *std::move(caller);
  if (route == nullptr) return SendNoRoute(api, request, responder.get());
  if (request.method == "POST") {
    if (std::string problem = MediaTypeProblem(request); !problem.empty()) {
      return responder->Send(ErrorResponse(ProtocolError(415, std::move(problem))));
    }
  }
  if (route->needs_model && api.service == nullptr) {
    return responder->Send(ErrorResponse(ErrorFromStatus(LoadingError())));
  }
  route->endpoint(api, request, std::move(responder));
}

}  // namespace

std::span<const Route> Routes() { return kRoutes; }

HttpHandler MakeApiHandler(const ApiContext* api) {
  return [api](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
    responder = api->access.cors.Decorate(request, std::move(responder));
    Serve(*api, std::move(request), std::move(responder));
  };
}

void SetApiHooks(const ApiContext* api, HttpOptions* options) {
  options->needs_body = [api](const HttpRequest& head) { return NeedsBody(*api, head); };
  options->is_probe = [api](const HttpRequest& head) {
    const Route* route = FindRoute(*api, head);
    return route != nullptr && route->access == RouteAccess::kProbe;
  };
  options->lane_turns.assign(std::begin(kLaneTurns), std::end(kLaneTurns));
  options->num_threads = 1 + std::accumulate(std::begin(kLaneTurns), std::end(kLaneTurns), 0);
  options->lane = [api](const HttpRequest& request) {
    const Route* route = FindRoute(*api, request);
    const bool tokenizes = route != nullptr && route->tokenizes;
    return static_cast<size_t>(tokenizes ? Lane::kTokenize : GenerationLane(request.body.size()));
  };
  options->on_error = [api](const HttpRequest& head, HttpResponse* response) {
    api->access.cors.AddHeaders(head, &response->headers);
  };
}

}  // namespace nsa
