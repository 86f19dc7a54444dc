#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/http/console_files.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

class ConsoleTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
  RawResponse Call(const std::string& path, const std::string& headers = "") {
    return Fetch(port(), absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: h\r\n", headers, "\r\n"));
  }
};

TEST_F(ConsoleTest, ThePageNamesOnlyFilesThatAreServed) {
  const RawResponse page = Call("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.body, Call("/console/index.html").body);
  std::set<std::string> linked;
  for (const std::string attribute : {"src=\"", "href=\""}) {
    for (size_t at = page.body.find(attribute); at != std::string::npos;
         at = page.body.find(attribute, at + 1)) {
      const size_t begin = at + attribute.size();
      const std::string target = page.body.substr(begin, page.body.find('"', begin) - begin);
      if (target.starts_with('#')) continue;
      linked.insert(target);
      EXPECT_EQ(Call(absl::StrCat("/", target)).status, 200) << target;
    }
  }
  EXPECT_THAT(linked, ::testing::IsSupersetOf({"console/style.css", "console/main.js"}));
}

TEST_F(ConsoleTest, EveryFileHasItsTypeAndIsConfined) {
  const std::map<std::string, std::string> types = {{"html", "text/html; charset=utf-8"},
                                                    {"css", "text/css; charset=utf-8"},
                                                    {"js", "text/javascript; charset=utf-8"},
                                                    {"svg", "image/svg+xml"},
                                                    {"txt", "text/plain; charset=utf-8"}};
  ASSERT_GT(ConsoleFiles().size(), 5U);
  for (const ConsoleFile& file : ConsoleFiles()) {
    const std::string name(file.name);
    const RawResponse response = Call("/console/" + name);
    EXPECT_EQ(response.body, file.text) << name;
    EXPECT_EQ(response.headers.at("content-type"), types.at(name.substr(name.rfind('.') + 1)));
    EXPECT_EQ(response.headers.at("x-content-type-options"), "nosniff");
    const std::string& policy = response.headers.at("content-security-policy");
    EXPECT_THAT(policy, HasSubstr("default-src 'none'; script-src 'self'; style-src 'self';"));
    EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  }
}

TEST_F(ConsoleTest, WhatTheBrowserHasIsNotSentAgain) {
  const RawResponse first = Call("/console/style.css");
  const std::string etag = first.headers.at("etag");
  EXPECT_EQ(first.headers.at("cache-control"), "no-cache");
  for (const std::string& known : {etag, "\"other\", W/" + etag, std::string("*")}) {
    RawClient client(port());
    client.Send(absl::StrCat("GET /console/style.css HTTP/1.1\r\nHost: h\r\nIf-None-Match: ", known,
                             "\r\n\r\n", Get("/version")));
    const RawResponse response = client.Receive(/*has_body=*/false);
    EXPECT_EQ(response.status, 304) << known;
    EXPECT_EQ(response.headers.count("content-length"), 0U);
    EXPECT_EQ(response.headers.at("etag"), etag);
    EXPECT_EQ(client.Receive().body, R"({"version":"1.2.3"})");
  }
  EXPECT_EQ(Call("/console/style.css", "If-None-Match: \"other\"\r\n").status, 200);
  EXPECT_NE(Call("/console/main.js").headers.at("etag"), etag);
}

TEST_F(ConsoleTest, NoOtherFileIsServed) {
  for (const char* path :
       {"/console/main", "/console/../main.js", "/console/%2e%2e/routes.cc",
        "/console/../v1/models", "/console/style.css/", "/console//etc/passwd", "/index.html"}) {
    EXPECT_EQ(ErrorOf(Call(path)), R"(404 invalid_request_error "not_found" null)") << path;
  }
}

}  // namespace
}  // namespace nsa
