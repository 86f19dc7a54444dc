// The gRPC front end over real sockets.
#include "server/grpc/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "tests/server/grpc/grpc_fixture.h"
#include "tests/support/test_certificate.h"

namespace nsa {
namespace {

using testing::HasSubstr;
TEST_F(GrpcServerTest, GenerateStreamsTextThenUsage) {
  harness_.SayBytes("hello", kPromptTokens);
  const Outcome outcome = Generate(Hi());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.Text(), "hello");
  EXPECT_GE(outcome.responses.size(), 6u);
  int num_finishes = 0;
  for (size_t i = 0; i < outcome.responses.size(); ++i) {
    EXPECT_EQ(outcome.responses[i].has_usage(), i + 1 == outcome.responses.size());
    num_finishes += outcome.responses[i].finish_reason() == v1::FINISH_REASON_STOP;
  }
  EXPECT_EQ(num_finishes, 1);
  const v1::Usage& usage = outcome.responses.back().usage();
  EXPECT_EQ(usage.prompt_tokens(), kPromptTokens);
  EXPECT_EQ(usage.completion_tokens(), 6);
  EXPECT_EQ(usage.kv_read_bytes(), 50);
  EXPECT_GT(usage.kv_dense_bytes(), 50);
}

TEST_F(GrpcServerTest, ChoicesLogprobsAndProgress) {
  v1::GenerateRequest request;
  request.set_text(std::string(30, 'p'));
  request.set_n(2);
  request.set_logprobs(1);
  request.set_max_tokens(3);
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.Text(0), "xxx");
  EXPECT_EQ(outcome.Text(1), "xxx");
  int num_logprobs = 0;
  int num_progress = 0;
  for (const auto& response : outcome.responses) {
    num_logprobs += response.logprobs_size();
    num_progress += response.has_progress();
    EXPECT_FALSE(response.has_progress() && !response.text().empty());
  }
  EXPECT_EQ(num_logprobs, 6);
  EXPECT_GT(num_progress, 0);
}

TEST_F(GrpcServerTest, ErrorsHaveTheCodesOfTheTable) {
  const auto code = [&](const v1::GenerateRequest& request) {
    const Outcome outcome = Generate(request);
    EXPECT_TRUE(outcome.responses.empty());
    EXPECT_FALSE(outcome.status.error_message().empty());
    return outcome.status.error_code();
  };
  v1::GenerateRequest request;
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);  // no input
  request = Hi();
  request.set_temperature(3);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request = Hi();
  request.set_max_tokens(100'000'000);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request = Hi();
  request.set_model("other");
  EXPECT_EQ(code(request), grpc::StatusCode::NOT_FOUND);
  request = Hi();
  request.set_timeout_seconds(1e-9);
  EXPECT_EQ(code(request), grpc::StatusCode::DEADLINE_EXCEEDED);
  request = Hi();
  request.set_n(1 << 20);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  harness_.executor.set_error(absl::InternalError("device"));
  EXPECT_EQ(code(Hi()), grpc::StatusCode::INTERNAL);
  harness_.executor.set_error(absl::OkStatus());
  request.clear_n();
  request.mutable_chat();
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  harness_.engine.Drain(absl::Now());
  EXPECT_EQ(code(Hi()), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, CancelFreesThePages) {
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  EXPECT_EQ(Drain(reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(harness_.BecomesIdle());
  EXPECT_LT(harness_.engine.Stats().num_generated_tokens, 900);
}

TEST_F(GrpcServerTest, ADeadlineFreesThePages) {
  harness_.executor.set_step_time(std::chrono::milliseconds(5));
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  auto reader = stub_->Generate(&context, request);
  EXPECT_EQ(Drain(reader.get()).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GrpcServerTest, AClosedConnectionFreesThePages) {
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    ASSERT_TRUE(reader->Read(&response));
  }  // the reader goes away in mid-stream
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GrpcServerTest, SpeaksTls) {
  const TlsFiles tls = MakeTestCertificate();
  StartServer({.port = 0, .tls = tls});
  EXPECT_EQ(Generate(Hi()).status.error_code(), grpc::StatusCode::UNAVAILABLE);  // without TLS
  channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                 grpc::SslCredentials({.pem_root_certs = tls.certificate}));
  stub_ = v1::GenerationService::NewStub(channel_);
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
  channel_ = grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", server_->port()),
      grpc::SslCredentials({.pem_root_certs = MakeTestCertificate().certificate}));
  stub_ = v1::GenerationService::NewStub(channel_);
  EXPECT_EQ(Generate(Hi()).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, ASlowReaderIsCutOffAndDisturbsNobody) {
  StartServer({.port = 0, .max_queued_bytes = 4000});
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  request.set_n(8);
  request.set_logprobs(20);
  grpc::ClientContext context;
  auto slow = stub_->Generate(&context, request);
  v1::GenerateResponse first;
  ASSERT_TRUE(slow->Read(&first));
  EXPECT_TRUE(harness_.BecomesIdle());  // nobody reads, and yet the call does not hold its pages
  harness_.executor.set_step_time(std::chrono::milliseconds(1));  // a pace that anybody can read at
  EXPECT_EQ(Generate(Hi()).Text(), std::string(16, 'x'));
  const Outcome outcome = Drain(slow.get());
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("too slowly"));
  EXPECT_LT(outcome.responses.size(), 8u * 900);
}

TEST_F(GrpcServerTest, HealthPerService) {
  EXPECT_EQ(Health(""), "SERVING");
  EXPECT_EQ(Health("nsa.v1.GenerationService"), "SERVING");
  EXPECT_EQ(Health("no.such.Service"), "error 5");  // NOT_FOUND
  server_->StopServing();
  EXPECT_EQ(Health(""), "SERVING");
  EXPECT_EQ(Health("nsa.v1.GenerationService"), "NOT_SERVING");
}

TEST_F(GrpcServerTest, BeforeThereIsAModelCallsAreUnavailable) {
  Listen({.port = 0});
  EXPECT_EQ(Health(""), "SERVING");
  EXPECT_EQ(Health("nsa.v1.GenerationService"), "NOT_SERVING");
  const grpc::Status generate = Generate(Hi()).status;
  EXPECT_EQ(generate.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(generate.error_message(), "the model is being loaded");
  for (const char* method : {"Tokenize", "Detokenize", "GetModelInfo"}) {
    std::string response;
    EXPECT_EQ(RawCall(channel_, absl::StrCat("/nsa.v1.GenerationService/", method), "", &response)
                  .error_code(),
              grpc::StatusCode::UNAVAILABLE);
  }
  server_->Serve(&harness_.service);
  EXPECT_EQ(Health("nsa.v1.GenerationService"), "SERVING");
  EXPECT_TRUE(Generate(Hi()).status.ok());
}

TEST_F(GrpcServerTest, ReflectionListsTheService) {
  std::string response;
  // Field 7 (list_services), an empty string.
  const grpc::Status status =
      RawCall(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              std::string("\x3A\x00", 2), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response, HasSubstr("nsa.v1.GenerationService"));
  EXPECT_THAT(response, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(GrpcServerTest, WhatIsNoMessageIsRefusedWithAWord) {
  // Field 2 (text), one byte that is not UTF-8; a field that is cut off.
  for (const std::string bytes : {"\x12\x01\xFF", "\x12\x05x"}) {
    for (const char* method : {"Generate", "Tokenize"}) {
      std::string response;
      const grpc::Status status =
          RawCall(channel_, absl::StrCat("/nsa.v1.GenerationService/", method), bytes, &response);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_EQ(status.error_message(),
                absl::StrCat("the bytes are not a nsa.v1.", method,
                             "Request, or a text in it is not valid UTF-8"));
    }
  }
}

TEST_F(GrpcServerTest, AMessageOverTheLimitIsRefused) {
  StartServer({.port = 0, .max_message_bytes = 1000});
  v1::GenerateRequest request;
  request.set_text(std::string(990, 'x'));
  request.set_max_tokens(1);
  while (request.ByteSizeLong() < 1000) *request.mutable_text() += 'x';
  ASSERT_EQ(request.ByteSizeLong(), 1000U);
  EXPECT_TRUE(Generate(request).status.ok());
  *request.mutable_text() += 'x';
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcServerTest, APortInUseIsNamed) {
  const auto second = GrpcServer::Start({.port = server_->port()});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("127.0.0.1:", server_->port())));
}

TEST_F(GrpcServerTest, ShutdownEndsRunningCalls) {
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  server_->Shutdown(absl::Now());
  EXPECT_FALSE(Drain(reader.get()).status.ok());
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GrpcServerTest, ManyCallsAtOnce) {
  harness_.SayBytes("hello", kPromptTokens);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        if ((i + round) % 4 == 0) {
          grpc::ClientContext context;
          auto reader = stub_->Generate(&context, Hi());
          context.TryCancel();
          Drain(reader.get());
        } else {
          const Outcome outcome = Generate(Hi());
          EXPECT_EQ(outcome.Text(), "hello") << outcome.status.error_message();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GrpcServerTest, EveryCallIsCountedOnceWithItsStatus) {
  std::mutex mutex;
  std::vector<std::string> ended;
  StartServer({.port = 0, .on_end = [&](std::string_view method, int code) {
                 const std::lock_guard lock(mutex);
                 ended.push_back(absl::StrCat(std::string(method), " ", code));
               }});
  Generate(Hi());
  v1::GenerateRequest bad = Hi();
  bad.set_n(0);
  Generate(bad);
  {
    grpc::ClientContext context;
    v1::TokenizeRequest request;
    request.set_text("x");
    v1::TokenizeResponse response;
    EXPECT_TRUE(stub_->Tokenize(&context, request, &response).ok());
  }
  server_.reset();
  EXPECT_THAT(ended, testing::ElementsAre("Generate 0", "Generate 3", "Tokenize 0"));
}

TEST_F(GrpcServerTest, AConstraintIsFollowedOrRefused) {
  v1::GenerateRequest request = Hi();
  request.set_regex("a[xy]b");
  EXPECT_EQ(Generate(request).Text(), "axb");
  request.set_regex("(");
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// While the constraint waits, or before, while its prompt is tokenized.
class CancelledConstraintTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(WhileTokenizing, CancelledConstraintTest, testing::Bool());
TEST_P(CancelledConstraintTest, LeavesNothingBehind) {
  ServiceHarness harness({}, {}, {.num_threads = 0});
  std::promise<void> begun, go;
  if (GetParam()) {
    harness.tokenizer.on_encode = [&](std::string_view) {
      begun.set_value();
      go.get_future().wait();
    };
  }
  const auto server = GrpcServer::Start({.port = 0}).value();
  server->Serve(&harness.service);
  const auto stub = v1::GenerationService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request = Hi();
  request.set_regex("a");
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  if (GetParam()) {
    begun.get_future().wait();
  } else {
    while (harness.constraints.num_waiting() == 0) absl::SleepFor(absl::Milliseconds(1));
  }
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  absl::SleepFor(absl::Milliseconds(50));  // the server hears of it
  go.set_value();
  absl::SleepFor(absl::Milliseconds(50));  // and goes on
  for (int i = 0; i < 1000 && harness.constraints.num_waiting() > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(harness.constraints.num_waiting(), 0);
}

}  // namespace
}  // namespace nsa
