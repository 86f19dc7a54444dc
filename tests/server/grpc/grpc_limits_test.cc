// What one client may cost the others over gRPC: floods of frames, calls that are given up, idle
// connections, the memory of messages.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/server/grpc/grpc_fixture.h"
#include "tests/server/grpc/http2_client.h"

namespace nsa {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(10);
constexpr char kGenerate[] = "/nsa.v1.GenerationService/Generate";

// Of this process; sanitizers keep what has been freed.
int64_t ResidentBytes() {
  constexpr int64_t kPageBytes = 4096;
  int64_t num_pages = 0, num_resident = 0;
  std::ifstream("/proc/self/statm") >> num_pages >> num_resident;
  return num_resident * kPageBytes;
}
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsMeasured = false;
#else
constexpr bool kMemoryIsMeasured = true;
#endif

using GrpcLimitsTest = GrpcServerTest;

TEST_F(GrpcLimitsTest, APingFloodIsSentAway) {
  Http2Client client(server_->port());
  ASSERT_TRUE(client.Begin());
  const Frame ping{.type = FrameType::kPing, .payload = "12345678"};
  for (int i = 0; i < 1000 && client.Send(ping); ++i) {
  }
  const auto away = client.ReceiveOf(FrameType::kGoAway, kPatience);
  ASSERT_TRUE(away.has_value());
  EXPECT_EQ(away->Number(4), kEnhanceYourCalm);
  EXPECT_THAT(away->payload, HasSubstr("too_many_pings"));
  EXPECT_TRUE(client.WaitForClose(kPatience));
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
}

// HTTP/2 rapid reset: calls that are given up as soon as they are made.
TEST_F(GrpcLimitsTest, CallsThatAreResetAtOnceCostNobodyElse) {
  std::string message;
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  ASSERT_TRUE(request.SerializeToString(&message));
  Http2Client client(server_->port());
  ASSERT_TRUE(client.Begin());
  uint32_t stream = 1;
  const auto reset_many = [&](int num_calls) {
    std::string bytes;
    for (int i = 0; i < num_calls; ++i, stream += 2) {
      bytes += EncodeFrame(CallHeaders(stream, kGenerate));
      bytes += EncodeFrame(CallMessage(stream, message));
      bytes += EncodeFrame(ResetStream(stream));
    }
    const bool sent = client.SendBytes(bytes);
    client.DropInput();
    return sent;
  };
  for (int i = 0; i < 20; ++i) reset_many(100);
  ASSERT_TRUE(harness_.BecomesIdle());
  const int64_t resident_bytes = ResidentBytes();
  for (int i = 0; i < 100; ++i) {
    if (!reset_many(100)) break;  // sent away, which is as good
    if (i % 20 == 0) {
      EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
    }
  }
  EXPECT_TRUE(harness_.BecomesIdle());
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
  // gRPC takes calls in faster than it clears them away, so their memory comes back a while later.
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (ResidentBytes() - resident_bytes > (32 << 20) && kMemoryIsMeasured &&
         absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(100));
    malloc_trim(0);
  }
  if (kMemoryIsMeasured) {
    EXPECT_LT(ResidentBytes() - resident_bytes, 32 << 20);
  }
}

TEST_F(GrpcLimitsTest, CallsOfOneConnectionAreLimited) {
  StartServer({.port = 0, .max_streams = 2});
  Http2Client client(server_->port());
  ASSERT_TRUE(client.Begin());
  const auto settings = client.ReceiveOf(FrameType::kSettings, kPatience);
  ASSERT_TRUE(settings.has_value());
  constexpr std::string_view kMaxConcurrentStreamsIs2("\0\3\0\0\0\2", 6);
  EXPECT_THAT(settings->payload, HasSubstr(std::string(kMaxConcurrentStreamsIs2)));
  // A client that keeps to it lets its calls wait; one that does not is refused.
  client.Send({.type = FrameType::kSettings, .flags = kAck});
  for (const uint32_t stream : {1, 3, 5}) client.Send(CallHeaders(stream, kGenerate));
  std::optional<Frame> frame = client.Receive(kPatience);
  while (frame.has_value() && frame->type != FrameType::kRstStream &&
         frame->type != FrameType::kGoAway) {
    frame = client.Receive(kPatience);
  }
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
}

TEST_F(GrpcLimitsTest, TokenizingKeepsNoOtherCallWaiting) {
  std::promise<void> go;
  const std::shared_future<void> gone = go.get_future().share();
  harness_.tokenizer.on_encode = [gone](std::string_view text) {
    if (text == "slow") gone.wait();
  };
  StartServer({.port = 0});
  constexpr int kNumClients = 40;
  std::atomic<int> num_answered{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < kNumClients; ++i) {
    clients.emplace_back([&] {
      v1::TokenizeRequest request;
      request.set_text("slow");
      grpc::ClientContext context;
      v1::TokenizeResponse response;
      if (stub_->Tokenize(&context, request, &response).ok()) ++num_answered;
    });
  }
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    EXPECT_EQ(Drain(stub_->Generate(&context, Hi()).get()).Text(), std::string(16, 'x'));
  }
  EXPECT_EQ(Health(""), "SERVING");
  EXPECT_EQ(num_answered, 0);
  go.set_value();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_answered, kNumClients);
}

TEST_F(GrpcLimitsTest, WhoLeavesWhileHeWaitsLeavesNothingInTheLane) {
  std::promise<void> begun, go, left;
  harness_.tokenizer.on_encode = [&](std::string_view text) {
    if (text != "slow") return;
    begun.set_value();
    go.get_future().wait();
  };
  StartServer({.port = 0, .on_end = [&](std::string_view /*method*/, int code) {
                 if (code == grpc::StatusCode::CANCELLED) left.set_value();
               }});
  const auto tokenize = [&](const char* text, absl::Duration patience) {
    v1::TokenizeRequest request;
    request.set_text(text);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + patience));
    v1::TokenizeResponse response;
    return stub_->Tokenize(&context, request, &response).error_code();
  };
  std::thread slow([&] { EXPECT_EQ(tokenize("slow", absl::Minutes(1)), grpc::StatusCode::OK); });
  begun.get_future().wait();
  EXPECT_EQ(tokenize("quick", absl::Milliseconds(100)), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(left.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  go.set_value();
  slow.join();
}

TEST_F(GrpcLimitsTest, IdleConnectionsEnd) {
  StartServer({.port = 0, .idle_timeout = absl::Seconds(1)});
  Http2Client idle(server_->port());
  ASSERT_TRUE(idle.Begin());
  EXPECT_TRUE(idle.ReceiveOf(FrameType::kGoAway, kPatience).has_value());
  // Clients of the library notice nothing.
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
  absl::SleepFor(absl::Milliseconds(1500));
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
}

TEST_F(GrpcLimitsTest, ConnectionsThatSayNothingEnd) {
  StartServer({.port = 0, .handshake_timeout = absl::Milliseconds(300)});
  Http2Client silent(server_->port()), garbage(server_->port());
  garbage.SendBytes("GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(silent.WaitForClose(kPatience));
  EXPECT_TRUE(garbage.WaitForClose(kPatience));
}

// A thousandth of the limit as it is sent, above it as it was meant.
TEST_F(GrpcLimitsTest, CompressedMessagesAreRefused) {
  StartServer({.port = 0, .max_message_bytes = 1 << 20});
  v1::TokenizeRequest request;
  v1::TokenizeResponse response;
  for (const size_t num_bytes : {1000, 64 << 20}) {
    request.set_text(std::string(num_bytes, 'x'));
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    EXPECT_EQ(stub_->Tokenize(&context, request, &response).error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
}

// Messages that are not sent to their end, on many streams of many connections.
TEST_F(GrpcLimitsTest, MessagesTogetherAreBounded) {
  constexpr int64_t kQuota = 8 << 20;
  StartServer({.port = 0, .max_message_bytes = 4 << 20, .max_total_message_bytes = kQuota});
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
  const int64_t resident_bytes = ResidentBytes();
  std::vector<std::unique_ptr<Http2Client>> clients;
  int64_t num_sent = 0;
  for (int c = 0; c < 30; ++c) {
    auto client = std::make_unique<Http2Client>(server_->port());
    if (!client->Begin()) continue;
    Frame message = CallMessage(1, std::string(16000, 'm'));
    message.flags = 0;
    message.payload[1] = 0;
    message.payload[2] = 0x3F;  // announces almost 4 MiB
    client->Send(CallHeaders(1, kGenerate));
    if (client->Send(message)) num_sent += static_cast<int64_t>(message.payload.size());
    for (int i = 0; i < 100; ++i) {
      client->DropInput();  // window updates are not waited for: the window is what it is
      Frame more{.type = FrameType::kData, .stream = 1, .payload = std::string(16000, 'm')};
      if (!client->Send(more)) break;
      num_sent += 16000;
    }
    clients.push_back(std::move(client));
  }
  absl::SleepFor(absl::Milliseconds(200));
  if (kMemoryIsMeasured) {
    EXPECT_LT(ResidentBytes() - resident_bytes, 4 * kQuota) << num_sent;
  }
  clients.clear();
  EXPECT_TRUE(harness_.BecomesIdle());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
}

}  // namespace
}  // namespace nsa
