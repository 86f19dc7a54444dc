#include "server/http/cors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"

namespace nsa {
namespace {

constexpr size_t kMaxHeaderListBytes = 1024;
constexpr std::string_view kHeaderListMarks = "-_, ";
constexpr std::string_view kMaxAgeSeconds = "600";  // for which a browser remembers the answer

// Whether a browser's list of header names is one, and short enough to be repeated.
bool IsHeaderList(const std::string& text) {
  return text.size() <= kMaxHeaderListBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  kHeaderListMarks.find(c) != std::string_view::npos;
         });
}

// The origin itself rather than "*", and Vary, so that no cache hands the response to another.
// `origin` is empty where none may read the response.
void AddOrigin(const std::string& origin, HttpHeaders* headers) {
  headers->emplace_back("Vary", "Origin");
  if (origin.empty()) return;
  headers->emplace_back("Access-Control-Allow-Origin", origin);
  headers->emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
}

class CorsResponder final : public HttpResponder {
 public:
  CorsResponder(std::shared_ptr<HttpResponder> responder, std::string origin)
      : responder_(std::move(responder)), origin_(std::move(origin)) {}

  void SetRoute(const std::string& route) override { responder_->SetRoute(route); }
  void Send(HttpResponse response) override {
    AddOrigin(origin_, &response.headers);
    responder_->Send(std::move(response));
  }
  void StartStream(HttpResponse head, std::string heartbeat) override {
    AddOrigin(origin_, &head.headers);
    responder_->StartStream(std::move(head), std::move(heartbeat));
  }
  void Write(std::string chunk) override { responder_->Write(std::move(chunk)); }
  void Close() override { responder_->Close(); }
  void OnDisconnect(std::function<void()> callback) override {
    responder_->OnDisconnect(std::move(callback));
  }
  void Post(std::function<void()> function) override { responder_->Post(std::move(function)); }

 private:
  const std::shared_ptr<HttpResponder> responder_;
  const std::string origin_;  // empty: none that may read the response
};

}  // namespace

const std::string* CorsPolicy::AllowedOrigin(const HttpRequest& request) const {
  const std::string* origin = request.Header("Origin");
  if (origin == nullptr) return nullptr;
  const bool is_allowed =
      std::any_of(origins_.begin(), origins_.end(),
                  [&](const std::string& allowed) { return allowed == "*" || allowed == *origin; });
  return is_allowed ? origin : nullptr;
}

std::shared_ptr<HttpResponder> CorsPolicy::Decorate(
    const HttpRequest& request, std::shared_ptr<HttpResponder> responder) const {
  if (origins_.empty()) return responder;
  const std::string* origin = AllowedOrigin(request);
  return std::make_shared<CorsResponder>(std::move(responder), origin == nullptr ? "" : *origin);
}

void CorsPolicy::AddHeaders(const HttpRequest& request, HttpHeaders* headers) const {
  if (origins_.empty()) return;
  const std::string* origin = AllowedOrigin(request);
  AddOrigin(origin == nullptr ? "" : *origin, headers);
}

void CorsPolicy::AnswerPreflight(const HttpRequest& request, std::string_view methods,
                                 HttpHeaders* headers) const {
  if (request.Header("Access-Control-Request-Method") == nullptr) return;
  if (AllowedOrigin(request) == nullptr) return;
  headers->emplace_back("Access-Control-Allow-Methods", methods);
  // Clients' libraries send headers of their own; nothing here depends on one of them.
  const std::string* wanted = request.Header("Access-Control-Request-Headers");
  if (wanted != nullptr && IsHeaderList(*wanted)) {
    headers->emplace_back("Access-Control-Allow-Headers", *wanted);
  }
  headers->emplace_back("Access-Control-Max-Age", kMaxAgeSeconds);
}

}  // namespace nsa
