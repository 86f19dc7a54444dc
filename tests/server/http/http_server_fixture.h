#pragma once
// HttpServerTest: a server with a few fixed endpoints.

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/http/http_server.h"
#include "tests/server/http/raw_client.h"

namespace nsa {

// Something that happens once.
class Signal {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    is_set_ = true;
    set_.notify_all();
  }
  bool is_set() {
    const std::lock_guard lock(mutex_);
    return is_set_;
  }
  // False if it does not happen within 10 s.
  bool Wait() {
    std::unique_lock lock(mutex_);
    return set_.wait_for(lock, std::chrono::seconds(10), [this] { return is_set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable set_;
  bool is_set_ = false;
};

// A server whose handler is a few fixed endpoints; requests to /hold are kept for the test.
class HttpServerTest : public ::testing::Test {
 protected:
  struct Held {
    std::shared_ptr<HttpResponder> responder;
    std::shared_ptr<Signal> disconnected = std::make_shared<Signal>();
  };

  void Start(HttpOptions options = {}) {
    options.port = 0;
    options.on_response = [this](const std::string& route, int status) {
      const std::lock_guard lock(mutex_);
      ++counts_[absl::StrCat(route, " ", status)];
    };
    auto server = HttpServer::Start(
        std::move(options), [this](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
          Handle(request, std::move(responder));
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void Handle(const HttpRequest& request, std::shared_ptr<HttpResponder> responder) {
    responder->SetRoute(request.path);
    if (request.path == "/echo") {
      responder->Send({.content_type = "text/plain", .body = request.method + " " + request.body});
    } else if (request.path == "/stream") {
      responder->StartStream({.content_type = "text/plain"}, {});
      responder->Write("one");
      responder->Write("");
      responder->Write("two\n");
      responder->Close();
    } else if (request.path == "/silent") {
      Hold(std::move(responder), /*stream=*/true);
    } else if (request.path == "/hold") {
      Hold(std::move(responder), /*stream=*/false);
    } else if (request.path == "/work") {
      work_.Wait();
      responder->Send({});
    } else if (request.path == "/half") {
      responder->StartStream({}, {});
      responder->Write("half");
    }
    // Any other path: the responder is dropped.
  }

  void Hold(std::shared_ptr<HttpResponder> responder, bool stream) {
    Held held{.responder = responder};
    responder->OnDisconnect([disconnected = held.disconnected] { disconnected->Set(); });
    if (stream) responder->StartStream({}, ":\n");
    const std::lock_guard lock(mutex_);
    held_.push_back(std::move(held));
    arrived_.notify_all();
  }

  // The nth request to /hold or /silent, once it is there.
  Held Wait(size_t n = 0) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        arrived_.wait_for(lock, std::chrono::seconds(10), [&] { return held_.size() > n; }));
    return held_[n];
  }

  int Count(const std::string& key) {
    const std::lock_guard lock(mutex_);
    return counts_[key];
  }

  bool WaitForConnections(int64_t num_connections) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (server_->num_connections() != num_connections) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return true;
  }

  // Until a request on a connection of its own is answered with `status`; false after 10 s.
  bool WaitForStatus(const std::string& request, int status) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (Fetch(server_->port(), request).status != status) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(20));
    }
    return true;
  }

  std::mutex mutex_;  // guards held_ and counts_
  std::condition_variable arrived_;
  std::vector<Held> held_;
  std::map<std::string, int> counts_;
  Signal work_;                         // the end of all requests to /work
  std::unique_ptr<HttpServer> server_;  // last: its threads use the rest
};

inline std::string Post(const std::string& path, const std::string& body) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: h\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", body);
}

}  // namespace nsa
