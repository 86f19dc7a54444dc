#include "server/grpc/generation_rpc.h"

#include <gmock/gmock.h>

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

}  // namespace
}  // namespace nsa
