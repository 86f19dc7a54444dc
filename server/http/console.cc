// GET /, GET /console/{file}: the page for browsers. It is open where everything else wants an API
// key, for it tells nothing but what stands in this repository; the calls that it makes need one.

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/http/console_files.h"
#include "server/http/endpoints.h"
#include "server/http/errors.h"

namespace nsa {
namespace {

constexpr char kPage[] = "index.html";
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

// By the end of a file's name.
constexpr std::pair<const char*, const char*> kMediaTypes[] = {
    {".html", "text/html; charset=utf-8"},     {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"}, {".svg", "image/svg+xml"},
    {".txt", "text/plain; charset=utf-8"},
};

const char* MediaTypeOf(absl::string_view name) {
  const auto type = std::find_if(std::begin(kMediaTypes), std::end(kMediaTypes),
                                 [&](const auto& t) { return absl::EndsWith(name, t.first); });
  return type == std::end(kMediaTypes) ? "application/octet-stream" : type->second;
}

// True if the client has this version: an If-None-Match that lists it.
bool IsCached(const HttpRequest& request, absl::string_view etag) {
  const std::string* known = request.Header("If-None-Match");
  if (known == nullptr) return false;
  for (const absl::string_view part : absl::StrSplit(*known, ',')) {
    const absl::string_view tag = absl::StripPrefix(absl::StripAsciiWhitespace(part), "W/");
    if (tag == etag || tag == "*") return true;
  }
  return false;
}

}  // namespace

void HandleConsole(const ApiContext&, const HttpRequest& request,
                   std::shared_ptr<HttpResponder> responder) {
  const std::string_view name =
      request.path == "/" ? kPage : std::string_view(request.path).substr(sizeof("/console/") - 1);
  const std::span<const ConsoleFile> files = ConsoleFiles();
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const ConsoleFile& f) { return f.name == name; });
  if (file == files.end()) {
    return responder->Send(ErrorResponse(
        ProtocolError(404, absl::StrCat("there is no GET ", request.path.substr(0, 200)))));
  }
  const std::string etag(file->etag);
  HttpResponse response{.content_type = MediaTypeOf(absl::string_view(name.data(), name.size())),
                        .headers = {{"ETag", etag},
                                    {"Cache-Control", "no-cache"},  // keep it, but ask
                                    {"Content-Security-Policy", kPolicy},
                                    {"X-Content-Type-Options", "nosniff"},
                                    {"Referrer-Policy", "no-referrer"}},
                        .body = std::string(file->text)};
  if (IsCached(request, etag)) {
    response.status = 304;
    response.content_type.clear();
    response.body.clear();
  }
  responder->Send(std::move(response));
}

}  // namespace nsa
