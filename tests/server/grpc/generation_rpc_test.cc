#include "server/grpc/generation_rpc.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "server/version.h"
#include "tests/server/grpc/grpc_fixture.h"

namespace nsa {
namespace {

TEST_F(GrpcServerTest, WithKeysEveryMethodWantsOne) {
  const ApiKeys keys = *ApiKeys::Parse("key-of-team-a\nkey-of-team-b\n", "keys");
  StartServer({.port = 0, .keys = &keys});
  const auto codes = [&](const std::string& authorization) {
    std::vector<grpc::StatusCode> found;
    grpc::ClientContext contexts[4];
    for (auto& context : contexts) {
      if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    }
    auto reader = stub_->Generate(&contexts[0], Hi());
    found.push_back(Drain(reader.get()).status.error_code());
    v1::TokenizeRequest tokenize;
    tokenize.set_text("hi");
    v1::TokenizeResponse tokens;
    found.push_back(stub_->Tokenize(&contexts[1], tokenize, &tokens).error_code());
    v1::DetokenizeRequest detokenize;
    detokenize.add_token_ids('h');
    v1::DetokenizeResponse text;
    found.push_back(stub_->Detokenize(&contexts[3], detokenize, &text).error_code());
    EXPECT_EQ(text.text().empty(), found[2] != grpc::StatusCode::OK);
    v1::GetModelInfoResponse info;
    found.push_back(stub_->GetModelInfo(&contexts[2], {}, &info).error_code());
    EXPECT_EQ(tokens.token_ids().empty(), found[1] != grpc::StatusCode::OK);
    EXPECT_EQ(info.ByteSizeLong() == 0, found[3] != grpc::StatusCode::OK);
    return found;
  };
  EXPECT_THAT(codes("Bearer key-of-team-b"), testing::Each(grpc::StatusCode::OK));
  for (const char* wrong : {"", "Bearer key-of-team-c", "key-of-team-a", "Basic key-of-team-a"}) {
    EXPECT_THAT(codes(wrong), testing::Each(grpc::StatusCode::UNAUTHENTICATED)) << wrong;
  }
  EXPECT_EQ(Health(""), "SERVING");  // probes have no key
}

TEST_F(GrpcServerTest, TokenizeAndModelInfo) {
  v1::TokenizeRequest request;
  request.set_text("hi");
  v1::TokenizeResponse response;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, request, &response).ok());
  EXPECT_EQ(response.token_ids_size(), 3);
  EXPECT_EQ(response.max_model_tokens(), harness_.service.model().max_request_tokens);
  request.set_add_special_tokens(false);
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Tokenize(&second, request, &response).ok());
  EXPECT_EQ(response.token_ids_size(), 2);
  request.set_model("other");
  grpc::ClientContext third;
  EXPECT_EQ(stub_->Tokenize(&third, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);

  request.clear_model();
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  grpc::ClientContext chat;
  ASSERT_TRUE(stub_->Tokenize(&chat, request, &response).ok());
  EXPECT_THAT(response.token_ids(), testing::ElementsAre('h', 'i', '|'));

  v1::DetokenizeRequest tokens;
  tokens.mutable_token_ids()->CopyFrom(response.token_ids());
  v1::DetokenizeResponse text;
  grpc::ClientContext back;
  ASSERT_TRUE(stub_->Detokenize(&back, tokens, &text).ok());
  EXPECT_EQ(text.text(), "hi|");
  tokens.add_token_ids(-1);
  grpc::ClientContext refused;
  EXPECT_EQ(stub_->Detokenize(&refused, tokens, &text).error_message(),
            "tokens[3] is -1; token ids go from 0 to 257");

  v1::GetModelInfoResponse info;
  grpc::ClientContext fourth;
  ASSERT_TRUE(stub_->GetModelInfo(&fourth, v1::GetModelInfoRequest(), &info).ok());
  EXPECT_EQ(info.model(), "tiny");
  EXPECT_EQ(info.architecture(), "NsaForCausalLM");
  EXPECT_EQ(info.attention(), "nsa");
  EXPECT_EQ(info.vocab_size(), 258);
  EXPECT_EQ(info.num_layers(), 3);
  EXPECT_EQ(info.num_heads(), 4);
  EXPECT_EQ(info.num_kv_heads(), 2);
  EXPECT_EQ(info.block_tokens(), 4);
  EXPECT_EQ(info.num_pages(), 256);
  EXPECT_EQ(info.version(), ServerVersion());
}

// What the log says of a call, as "name=json" by name.
class GrpcLogTest : public GrpcServerTest {
 protected:
  using Line = std::map<std::string, std::string>;

  void SetUp() override {
    RequestLogOptions options{.access = AccessLog::kNoProbes};
    options.write = [this](LogLevel /*level*/, const LogFields& fields) {
      const std::lock_guard lock(mutex_);
      Line& line = lines_.emplace_back();
      for (const auto& [name, json] : fields.fields()) line[name] = json;
      written_.notify_all();
    };
    StartServer({.port = 0,
                 .max_queued_bytes = 4096,
                 .log = std::make_shared<const RequestLogOptions>(std::move(options))});
  }
  void TearDown() override { server_.reset(); }

  // The nth line, once it is there.
  Line Wait(size_t n = 0) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        written_.wait_for(lock, std::chrono::seconds(20), [&] { return lines_.size() > n; }));
    return lines_.size() > n ? lines_[n] : Line();
  }

  std::mutex mutex_;
  std::condition_variable written_;
  std::vector<Line> lines_;
};

TEST_F(GrpcLogTest, ALineForEachCallAndItsIdInTheAnswer) {
  harness_.SayBytes("abc", kPromptTokens);
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "my.id");
  context.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  auto reader = stub_->Generate(&context, Hi());
  EXPECT_TRUE(Drain(reader.get()).status.ok());
  EXPECT_EQ(context.GetServerInitialMetadata().find("x-request-id")->second, "my.id");
  const Line line = Wait();
  const Line expected = {{"request_id", "\"my.id\""},
                         {"trace_id", "\"4bf92f3577b34da6a3ce929d0e0e4736\""},
                         {"transport", "\"grpc\""},
                         {"route", "\"Generate\""},
                         {"grpc_status", "\"OK\""},
                         {"finish_reasons", "\"stop\""},
                         {"choices", "1"},
                         {"prompt_tokens", "3"},
                         {"cached_tokens", "0"},
                         {"output_tokens", "4"}};
  for (const auto& [name, json] : expected) EXPECT_EQ(line.at(name), json) << name;
  EXPECT_FALSE(line.contains("error"));
}

TEST_F(GrpcLogTest, WhatIsRefusedHasALineToo) {
  grpc::ClientContext generate, tokenize;
  generate.AddMetadata("x-request-id", "not acceptable");
  v1::GenerateRequest request = Hi();
  request.set_temperature(3);
  auto reader = stub_->Generate(&generate, request);
  EXPECT_FALSE(Drain(reader.get()).status.ok());
  Line line = Wait(0);
  EXPECT_EQ(line.at("grpc_status"), "\"INVALID_ARGUMENT\"");
  EXPECT_EQ(line.at("error"), "\"invalid_value\"");
  EXPECT_TRUE(line.at("request_id").starts_with("\"req-")) << line.at("request_id");
  EXPECT_FALSE(line.contains("choices"));

  // Twice is once too often, whatever it says.
  for (int i = 0; i < 2; ++i) {
    tokenize.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  }
  v1::TokenizeRequest unknown;
  unknown.set_model("other");
  v1::TokenizeResponse response;
  EXPECT_FALSE(stub_->Tokenize(&tokenize, unknown, &response).ok());
  line = Wait(1);
  EXPECT_EQ(line.at("route"), "\"Tokenize\"");
  EXPECT_EQ(line.at("error"), "\"model_not_found\"");
  EXPECT_FALSE(line.contains("trace_id"));
}

TEST_F(GrpcLogTest, AClientThatLeavesIsNamed) {
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  grpc::ClientContext context;
  v1::GenerateRequest request = Hi();
  request.set_max_tokens(900);
  request.set_ignore_eos(true);
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  Drain(reader.get());
  const Line line = Wait();
  EXPECT_EQ(line.at("grpc_status"), "\"CANCELLED\"");
  EXPECT_EQ(line.at("error"), "\"client_left\"");
  EXPECT_NE(line.at("output_tokens"), "0");
}

}  // namespace
}  // namespace nsa
