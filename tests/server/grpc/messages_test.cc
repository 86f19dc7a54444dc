#include "server/grpc/messages.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace nsa {
namespace {

TEST(MessagesTest, EveryFieldOfARequest) {
  v1::GenerateRequest request;
  request.set_model("m");
  request.set_text("hello");
  request.set_max_tokens(7);
  request.set_temperature(0.5F);
  request.set_top_p(0.25F);
  request.set_top_k(9);
  request.set_min_p(0.125F);
  request.set_seed(1ULL << 63);
  request.set_n(3);
  request.add_stop("a");
  request.add_stop("b");
  request.add_stop_token_ids(5);
  request.set_include_stop_text(true);
  request.set_ignore_eos(true);
  request.set_logprobs(4);
  request.set_timeout_seconds(1.5);
  const GenerateCall call = ToGenerateCall(request);
  EXPECT_EQ(call.model, "m");
  EXPECT_EQ(std::get<std::string>(call.input), "hello");
  EXPECT_EQ(call.max_tokens, 7);
  EXPECT_EQ(call.temperature, 0.5);
  EXPECT_EQ(call.top_p, 0.25);
  EXPECT_EQ(call.top_k, 9);
  EXPECT_EQ(call.min_p, 0.125);
  EXPECT_EQ(call.seed, 1ULL << 63);
  EXPECT_EQ(call.n, 3);
  EXPECT_EQ(call.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(call.stop_token_ids, (std::vector<int64_t>{5}));
  EXPECT_TRUE(call.include_stop_text);
  EXPECT_TRUE(call.ignore_eos);
  EXPECT_EQ(call.num_logprobs, 4);
  EXPECT_EQ(call.timeout_seconds, 1.5);
}

TEST(MessagesTest, WhatARequestLeavesOutStaysAbsent) {
  const GenerateCall call = ToGenerateCall(v1::GenerateRequest());
  EXPECT_EQ(std::get<std::string>(call.input), "");
  EXPECT_FALSE(call.max_tokens || call.temperature || call.top_p || call.top_k || call.min_p ||
               call.seed || call.n || call.num_logprobs || call.timeout_seconds);
  EXPECT_FALSE(call.ignore_eos);
}

TEST(MessagesTest, ZeroIsNotAbsent) {
  v1::GenerateRequest request;
  request.set_temperature(0);
  request.set_logprobs(0);
  EXPECT_EQ(ToGenerateCall(request).temperature, 0.0);
  EXPECT_EQ(ToGenerateCall(request).num_logprobs, 0);
}

TEST(MessagesTest, InputsOfEveryKind) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(5);
  request.mutable_token_ids()->add_ids(-6);
  EXPECT_EQ(std::get<std::vector<int64_t>>(ToGenerateCall(request).input),
            (std::vector<int64_t>{5, -6}));
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  const auto messages = std::get<std::vector<ChatMessage>>(ToGenerateCall(request).input);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].role, "user");
  EXPECT_EQ(messages[0].content, "hi");
}

TEST(MessagesTest, ConstraintsOfEveryKind) {
  v1::GenerateRequest request;
  EXPECT_TRUE(ToGenerateCall(request).constraints.empty());
  request.set_json_object(false);
  EXPECT_TRUE(ToGenerateCall(request).constraints.empty());
  const auto only = [&request] { return *ToGenerateCall(request).constraints.at(0); };
  request.set_json_object(true);
  EXPECT_EQ(only().field, "json_object");
  EXPECT_EQ(only().spec, ConstraintSpec{.kind = ConstraintKind::kJsonObject});
  request.set_json_schema("{}");
  EXPECT_EQ(only().field, "json_schema");
  EXPECT_EQ(only().spec, (ConstraintSpec{.kind = ConstraintKind::kJsonSchema, .source = "{}"}));
  request.set_regex("a");
  EXPECT_EQ(only().field, "regex");
  EXPECT_EQ(only().spec, (ConstraintSpec{.kind = ConstraintKind::kRegex, .source = "a"}));
  request.mutable_choices()->add_texts("b");
  EXPECT_EQ(only().field, "choices");
  EXPECT_EQ(only().spec, (ConstraintSpec{.kind = ConstraintKind::kChoice, .choices = {"b"}}));
}

TEST(MessagesTest, Delta) {
  GenerateEvent event{.choice = 2, .text = "ab", .tokens = {1, 2}};
  event.finish = FinishReason::kLength;
  event.logprobs.push_back({.token = 1, .bytes = "\xE2", .logprob = -0.5});
  event.logprobs[0].top.push_back({.token = 9, .bytes = "z", .logprob = -0.25});
  const v1::GenerateResponse response = ToGenerateResponse(event);
  EXPECT_EQ(response.choice_index(), 2);
  EXPECT_EQ(response.text(), "ab");
  ASSERT_EQ(response.token_ids_size(), 2);
  EXPECT_EQ(response.token_ids(1), 2);
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_LENGTH);
  ASSERT_EQ(response.logprobs_size(), 1);
  EXPECT_EQ(response.logprobs(0).token(), "\xE2");
  EXPECT_EQ(response.logprobs(0).logprob(), -0.5F);
  EXPECT_EQ(response.logprobs(0).top(0).token_id(), 9);
  EXPECT_EQ(response.logprobs(0).top(0).logprob(), -0.25F);
  EXPECT_FALSE(response.has_usage() || response.has_progress());
}

TEST(MessagesTest, ProgressAndUsage) {
  GenerateEvent progress{.kind = GenerateEvent::Kind::kProgress, .choice = 1};
  progress.prompt_tokens_done = 64;
  progress.prompt_tokens_total = 100;
  const v1::GenerateResponse first = ToGenerateResponse(progress);
  EXPECT_EQ(first.progress().prompt_tokens_done(), 64);
  EXPECT_EQ(first.progress().prompt_tokens_total(), 100);
  EXPECT_EQ(first.choice_index(), 1);
  GenerateEvent done{.kind = GenerateEvent::Kind::kDone};
  done.usage = {
      .prompt_tokens = 3, .cached_prompt_tokens = 2, .completion_tokens = 4, .traffic = {5, 6}};
  done.usage.queue = absl::Milliseconds(250);
  done.usage.prefill = absl::Milliseconds(500);
  done.usage.decode = absl::Seconds(2);
  const v1::Usage usage = ToGenerateResponse(done).usage();
  EXPECT_EQ(usage.prompt_tokens(), 3);
  EXPECT_EQ(usage.cached_prompt_tokens(), 2);
  EXPECT_EQ(usage.completion_tokens(), 4);
  EXPECT_EQ(usage.kv_read_bytes(), 5);
  EXPECT_EQ(usage.kv_dense_bytes(), 6);
  EXPECT_EQ(usage.queue_seconds(), 0.25);
  EXPECT_EQ(usage.prefill_seconds(), 0.5);
  EXPECT_EQ(usage.decode_seconds(), 2);
}

TEST(MessagesTest, StatusKeepsCodeAndMessage) {
  const grpc::Status status = ToGrpcStatus(absl::ResourceExhaustedError("full"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "full");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace nsa
