#pragma once
// GrpcServerTest: the gRPC front end over real sockets, on a fake model.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "server/grpc/grpc_server.h"
#include "tests/support/service_harness.h"

namespace nsa {

inline constexpr int64_t kPromptTokens = 3;  // BOS, 'h', 'i'

inline v1::GenerateRequest Hi() {
  v1::GenerateRequest request;
  request.set_text("hi");
  return request;
}

// A call with one message of bytes in and one out: for protocols without installed C++ stubs, and
// for messages that generated code would not send.
inline grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel,
                            const std::string& method, const std::string& request,
                            std::string* response) {
  const grpc::Slice slice(request);
  const grpc::ByteBuffer request_buffer(&slice, 1);
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, method, request_buffer, &queue);
  call->StartCall();
  grpc::ByteBuffer response_buffer;
  grpc::Status status;
  call->Finish(&response_buffer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  grpc::Slice response_slice;
  if (status.ok() && response_buffer.DumpToSingleSlice(&response_slice).ok()) {
    response->assign(reinterpret_cast<const char*>(response_slice.begin()), response_slice.size());
  }
  return status;
}

class GrpcServerTest : public testing::Test {
 protected:
  void SetUp() override { StartServer({.port = 0}); }

  void StartServer(const GrpcOptions& options) {
    Listen(options);
    server_->Serve(&harness_.service);
  }

  void Listen(const GrpcOptions& options) {
    server_.reset();
    auto server = GrpcServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::GenerationService::NewStub(channel_);
  }

  struct Outcome {
    std::vector<v1::GenerateResponse> responses;
    grpc::Status status;
    std::string Text(int choice = 0) const {
      std::string text;
      for (const auto& r : responses) text += r.choice_index() == choice ? r.text() : "";
      return text;
    }
  };
  Outcome Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    return Drain(reader.get());
  }
  static Outcome Drain(grpc::ClientReader<v1::GenerateResponse>* reader) {
    Outcome outcome;
    v1::GenerateResponse response;
    while (reader->Read(&response)) outcome.responses.push_back(response);
    outcome.status = reader->Finish();
    return outcome;
  }

  // What a health check says. Request: field 1, the service; response: field 1, the state.
  std::string Health(const std::string& service) {
    std::string request;
    if (!service.empty()) request = "\x0A" + std::string(1, static_cast<char>(service.size()));
    std::string response;
    const grpc::Status status =
        RawCall(channel_, "/grpc.health.v1.Health/Check", request + service, &response);
    if (!status.ok()) return absl::StrCat("error ", static_cast<int>(status.error_code()));
    if (response == "\x08\x01") return "SERVING";
    return response == "\x08\x02" ? "NOT_SERVING" : "other";
  }

  ServiceHarness harness_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace nsa
