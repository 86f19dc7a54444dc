#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "server/request_log.h"
#include "tests/server/http/http_server_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

TEST_F(HttpServerTest, IdleAndSlowClientsTimeOut) {
  Start({.idle_timeout = absl::Milliseconds(200), .read_timeout = absl::Milliseconds(200)});
  RawClient idle(server_->port()), slow(server_->port()), patient(server_->port());
  slow.Send("GET /echo HTTP/1.1\r\nHos");
  patient.Send(Get("/hold"));
  EXPECT_EQ(idle.ReadToEnd(), "");
  const RawResponse response = slow.Receive();
  EXPECT_EQ(response.status, 408);
  EXPECT_THAT(response.body, HasSubstr("200ms"));
  // A request in progress is not subject to either.
  Wait().responder->Send({.body = "late"});
  EXPECT_EQ(patient.Receive().body, "late");
  EXPECT_TRUE(patient.WaitForClose(absl::Seconds(5)));
}

TEST_F(HttpServerTest, AReaderThatTakesNothingTimesOut) {
  Start({.socket_send_buffer_bytes = 4096, .write_timeout = absl::Milliseconds(200)});
  RawClient client(server_->port(), /*receive_buffer_bytes=*/4096);
  client.Send(Get("/hold"));
  Held held = Wait();
  held.responder->Send({.body = std::string(16 << 20, 'x')});  // whole responses have no bound
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpServerTest, AReaderThatTakesAFewBytesAtATimeTimesOut) {
  Start({.socket_send_buffer_bytes = 4096, .write_timeout = absl::Milliseconds(300)});
  RawClient client(server_->port(), /*receive_buffer_bytes=*/4096);
  client.Send(Get("/hold"));
  std::string body;
  for (int i = 0; i < 16 << 10; ++i) body += std::string(1023, 'x') + "\n";
  Wait().responder->Send({.body = std::move(body)});
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (server_->num_connections() > 0 && absl::Now() < deadline) {
    client.ReadUntil("\n");
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(HttpServerTest, ConnectionsOverTheLimitAreAnswered503) {
  Start({.max_connections = 2});
  RawClient first(server_->port()), second(server_->port());
  ASSERT_TRUE(WaitForConnections(2));
  const RawResponse response = Fetch(server_->port(), Post("/echo", "x"));
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.headers.at("retry-after"), "5");
  EXPECT_EQ(Fetch(server_->port(), "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n").status, 503);
  EXPECT_EQ(Fetch(server_->port(), "garbage\r\n\r\n").status, 400);
  first.Send(Get("/echo"));
  EXPECT_EQ(first.Receive().status, 200);
  second.Close();
  ASSERT_TRUE(WaitForConnections(1));
  EXPECT_EQ(Fetch(server_->port(), Get("/echo")).status, 200);
}

HttpOptions OneConnectionAndProbes() {
  return {.max_connections = 1,
          .is_probe = [](const HttpRequest& head) { return head.path == "/echo"; }};
}

TEST_F(HttpServerTest, ProbesAreAnsweredBeyondTheLimit) {
  Start(OneConnectionAndProbes());
  RawClient first(server_->port());
  ASSERT_TRUE(WaitForConnections(1));
  RawClient probe(server_->port());
  probe.Send(Get("/echo"));
  const RawResponse response = probe.Receive();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_EQ(Fetch(server_->port(), "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
  EXPECT_EQ(Fetch(server_->port(), Get("/half")).status, 503);
}

// Neither do those that are refused stand in the way of others: not of probes, not of the next one
// within the limit.
TEST_F(HttpServerTest, SilentConnectionsBeyondTheLimitKeepNobodyOut) {
  Start(OneConnectionAndProbes());
  auto first = std::make_unique<RawClient>(server_->port());
  ASSERT_TRUE(WaitForConnections(1));
  std::vector<std::unique_ptr<RawClient>> silent;
  for (int i = 0; i < 200; ++i) silent.push_back(std::make_unique<RawClient>(server_->port()));
  EXPECT_EQ(Fetch(server_->port(), Get("/echo")).status, 200);
  EXPECT_LE(server_->num_connections(), 1 + 64);
  first.reset();
  EXPECT_TRUE(WaitForStatus(Get("/half"), 200));
}

TEST_F(HttpServerTest, ARefusedConnectionThatSaysNothingIsNotWaitedForLong) {
  Start({.max_connections = 1, .linger_timeout = absl::Milliseconds(200)});
  RawClient first(server_->port());
  ASSERT_TRUE(WaitForConnections(1));
  RawClient silent(server_->port()), slow(server_->port());
  slow.Send("GET / HTTP/1.1\r\nHost");
  EXPECT_EQ(silent.Receive().status, 503);
  EXPECT_EQ(slow.Receive().status, 503);
}

TEST_F(HttpServerTest, HandlersThatWorkLeaveAThreadToProbes) {
  Start({.is_probe = [](const HttpRequest& head) { return head.path == "/echo"; }});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->Send(Get("/work"));
  }
  clients.front()->Reset();
  clients.back()->Reset();  // it waits
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Fetch(server_->port(), Get("/echo")).status, 200);
  EXPECT_FALSE(work_.is_set());
  EXPECT_EQ(Count("/work 200"), 0);
  work_.Set();
  for (int i = 1; i < 9; ++i) EXPECT_EQ(clients[i]->Receive().status, 200);
  EXPECT_EQ(Fetch(server_->port(), Get("/work")).status, 200);
}

TEST_F(HttpServerTest, HandlersWaitInTheirOwnLane) {
  Start({.lane_turns = {1, 2}, .lane = [](const HttpRequest& request) -> size_t {
           return request.path == "/work" ? 1 : 0;
         }});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->Send(Get("/work"));
  }
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Fetch(server_->port(), Get("/echo")).status, 200);
  EXPECT_FALSE(work_.is_set());
  EXPECT_EQ(Count("/work 200"), 0);
  work_.Set();
  for (const auto& client : clients) EXPECT_EQ(client->Receive().status, 200);
}

TEST_F(HttpServerTest, WhoLeavesWhileHeWaitsLeavesNothingInTheLane) {
  Signal ended;
  Start(
      {.lane_turns = {1},
       .log = std::make_shared<RequestLogOptions>(RequestLogOptions{
           .access = AccessLog::kOn, .write = [&](LogLevel, const LogFields&) { ended.Set(); }})});
  RawClient working(server_->port());
  working.Send(Get("/work"));
  RawClient waiting(server_->port());
  ASSERT_TRUE(WaitForConnections(2));
  waiting.Send(PostJson("/work", std::string(1 << 20, ' ')));
  absl::SleepFor(absl::Milliseconds(50));  // likely for its turn by then
  waiting.Reset();
  EXPECT_TRUE(ended.Wait());  // its line is written when nothing has the request any more
  EXPECT_FALSE(work_.is_set());
  work_.Set();
  EXPECT_EQ(working.Receive().status, 200);
  server_.reset();  // writes to `ended`
}

// Dripping bytes keeps neither a head nor a body alive.
TEST_F(HttpServerTest, DrippedRequestsTimeOut) {
  Start({.read_timeout = absl::Milliseconds(400)});
  for (const char* begin : {"GET /echo HTTP/1.1\r\nX: ",
                            "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n",
                            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "3e8\r\n"}) {
    RawClient client(server_->port());
    client.Send(begin);
    const absl::Time start = absl::Now();
    while (Count(" 408") == 0 && absl::Now() - start < absl::Seconds(10)) {
      client.Send("x");
      absl::SleepFor(absl::Milliseconds(20));
    }
    EXPECT_LT(absl::Now() - start, absl::Seconds(5));
    EXPECT_EQ(client.Receive().status, 408) << begin;
    const std::lock_guard lock(mutex_);
    counts_.clear();
  }
}

TEST_F(HttpServerTest, AUsedPortIsNamed) {
  Start();
  const auto second = HttpServer::Start({.port = server_->port()}, nullptr);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("127.0.0.1:", server_->port(), ": Address already in use")));
  const auto nowhere = HttpServer::Start({.host = "203.0.113.7", .port = 0}, nullptr);
  EXPECT_THAT(std::string(nowhere.status().message()), HasSubstr("203.0.113.7:0"));
}

TEST_F(HttpServerTest, ListensOnNames) {
  auto server = HttpServer::Start({.host = "localhost", .port = 0}, nullptr);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
}

TEST_F(HttpServerTest, ShutdownLetsRunningRequestsFinish) {
  Start();
  RawClient idle(server_->port()), busy(server_->port());
  busy.Send(Get("/hold"));
  Held held = Wait();
  ASSERT_TRUE(WaitForConnections(2));
  std::thread shutdown([&] { server_->Shutdown(absl::Now() + absl::Seconds(20)); });
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_FALSE(held.disconnected->is_set());
  held.responder->Send({.body = "finished"});
  const RawResponse response = busy.Receive();
  EXPECT_EQ(response.body, "finished");
  EXPECT_EQ(response.headers.at("connection"), "close");
  busy.Close();
  shutdown.join();
  RawClient late(server_->port());
  EXPECT_FALSE(late.Send(Get("/echo")) && late.Receive().status == 200);
}

TEST_F(HttpServerTest, ShutdownEndsTheRestAtTheDeadline) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/hold"));
  Held held = Wait();
  const absl::Time begin = absl::Now();
  server_->Shutdown(absl::Now() + absl::Milliseconds(200));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
  EXPECT_TRUE(held.disconnected->is_set());
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(HttpServerTest, RespondersMayOutliveTheServer) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/silent"));
  Held held = Wait();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) {
      held.responder->Write("x");
      held.responder->Post([] {});
    }
  });
  server_.reset();
  stop = true;
  writer.join();
  held.responder->Close();
  EXPECT_TRUE(held.disconnected->is_set());
}

TEST_F(HttpServerTest, StopAcceptingLeavesConnectionsAlone) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/echo"));
  EXPECT_EQ(client.Receive().status, 200);
  server_->StopAccepting();
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (RawClient(server_->port()).Send("x") && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_LT(absl::Now(), deadline);
  client.Send(Get("/echo"));
  EXPECT_EQ(client.Receive().status, 200);
}

TEST_F(HttpServerTest, WritesFromManyThreadsArriveWhole) {
  Start({.max_buffered_bytes = 8 << 20});
  RawClient client(server_->port());
  client.Send(Get("/silent"));
  Held held = Wait();
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) held.responder->Write(std::string(10, 'a' + t));
    });
  }
  for (std::thread& writer : writers) writer.join();
  held.responder->Close();
  const RawResponse response = client.Receive();
  EXPECT_TRUE(response.complete);
  std::map<std::string, int> seen;
  for (const std::string& chunk : response.chunks) ++seen[chunk];
  seen.erase(":\n");
  EXPECT_EQ(seen.size(), 4U);
  for (const auto& [chunk, count] : seen) EXPECT_EQ(count, 500) << chunk;
}

TEST_F(HttpServerTest, ServesManyConnectionsAtOnce) {
  Start();
  std::vector<std::thread> clients;
  std::atomic<int> num_good{0};
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&, t] {
      RawClient client(server_->port());
      for (int i = 0; i < 100; ++i) {
        const std::string body = absl::StrCat(t, "-", i);
        client.Send(Post("/echo", body));
        if (client.Receive().body == "POST " + body) ++num_good;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_good, 800);
  EXPECT_EQ(Count("/echo 200"), 800);
}

}  // namespace
}  // namespace nsa
