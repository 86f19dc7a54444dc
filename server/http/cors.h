#pragma once
// Cross-origin requests of browsers: which origins may read responses, and the answer to preflight
// requests.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_message.h"

namespace nsa {

class CorsPolicy {
 public:
  // Origins as browsers send them ("https://chat.example.com"); "*" stands for any. Empty: none.
  CorsPolicy() = default;
  explicit CorsPolicy(std::vector<std::string> origins) : origins_(std::move(origins)) {}

  // A responder that adds what lets the request's origin read the response, if it may, and tells
  // caches that others get another one; the same responder if no origin is ever let in.
  std::shared_ptr<HttpResponder> Decorate(const HttpRequest& request,
                                          std::shared_ptr<HttpResponder> responder) const;

  // The same for a response that no responder sends.
  void AddHeaders(const HttpRequest& request, HttpHeaders* headers) const;

  // Adds what a preflight request (OPTIONS with Access-Control-Request-Method) wants to know; to
  // others nothing. `methods`: those of the path.
  void AnswerPreflight(const HttpRequest& request, std::string_view methods,
                       HttpHeaders* headers) const;

 private:
  // The origin of the request if it may read responses, else null.
  const std::string* AllowedOrigin(const HttpRequest& request) const;

  std::vector<std::string> origins_;
};

}  // namespace nsa
