#include "server/call_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/error_detail.h"

namespace nsa {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocabSize = 100;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNaN = std::nan("");

absl::StatusOr<CallOptions> Check(const std::function<void(GenerateCall&)>& change) {
  GenerateCall call;
  change(call);
  return CheckOptions(call, SamplingDefaults{}, kVocabSize);
}

// Each value is accepted.
template <typename Field, typename Value>
void ExpectAccepted(Field GenerateCall::*field, const std::vector<Value>& values) {
  for (const Value& value : values) {
    const auto options = Check([&](GenerateCall& call) { call.*field = value; });
    EXPECT_TRUE(options.ok()) << options.status();
  }
}

// Each value is refused with the field's name and itself in the message.
template <typename Field, typename Value>
void ExpectRefused(const std::string& name, Field GenerateCall::*field,
                   const std::vector<Value>& values) {
  for (const Value& value : values) {
    const absl::Status status = Check([&](GenerateCall& call) { call.*field = value; }).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << " " << value;
    EXPECT_EQ(GetDetail(status).param, name);
    EXPECT_EQ(GetDetail(status).code, "invalid_value");
    EXPECT_THAT(std::string(status.message()), HasSubstr(name + " is "));
  }
}

TEST(CallChecksTest, NumbersAtBelowAndAboveTheirLimits) {
  ExpectAccepted<std::optional<double>, double>(&GenerateCall::temperature, {0, 1e-9, 1, 2});
  ExpectRefused<std::optional<double>, double>(
      "temperature", &GenerateCall::temperature,
      {-1e-9, 2.0001, 1e308, -1e308, kNaN, kInfinity, -kInfinity});
  ExpectAccepted<std::optional<double>, double>(&GenerateCall::top_p, {1e-300, 0.5, 1});
  ExpectRefused<std::optional<double>, double>("top_p", &GenerateCall::top_p,
                                               {0, -0.1, 1.0001, 1e308, -1e308, kNaN, kInfinity});
  ExpectAccepted<std::optional<double>, double>(&GenerateCall::min_p, {0, 0.5, 1});
  ExpectRefused<std::optional<double>, double>("min_p", &GenerateCall::min_p,
                                               {-0.1, 1.0001, 1e308, -1e308, kNaN, kInfinity});
  ExpectAccepted<std::optional<int64_t>, int64_t>(
      &GenerateCall::top_k, {-1, 0, 1, kVocabSize, std::numeric_limits<int64_t>::max()});
  ExpectRefused<std::optional<int64_t>, int64_t>("top_k", &GenerateCall::top_k, {-2});
  ExpectAccepted<std::optional<int64_t>, int64_t>(&GenerateCall::n, {1, 128});
  ExpectRefused<std::optional<int64_t>, int64_t>("n", &GenerateCall::n, {-1, 0, 129});
  ExpectAccepted<std::optional<int64_t>, int64_t>(&GenerateCall::num_logprobs, {0, 20});
  ExpectRefused<std::optional<int64_t>, int64_t>("logprobs", &GenerateCall::num_logprobs, {-1, 21});
  ExpectAccepted<std::optional<int64_t>, int64_t>(&GenerateCall::max_tokens, {1, 1 << 30});
  ExpectRefused<std::optional<int64_t>, int64_t>("max_tokens", &GenerateCall::max_tokens, {0, -5});
  ExpectAccepted<std::optional<double>, double>(&GenerateCall::timeout_seconds, {1e-3, 86400});
  ExpectRefused<std::optional<double>, double>("timeout", &GenerateCall::timeout_seconds,
                                               {0, -1, 86401, 1e308, -1e308, kNaN, kInfinity});
}

TEST(CallChecksTest, MessagesNameTheLimits) {
  const auto message = [](const std::function<void(GenerateCall&)>& change) {
    return std::string(Check(change).status().message());
  };
  EXPECT_EQ(message([](GenerateCall& c) { c.temperature = 2.5; }),
            "temperature is 2.5; allowed: 0 to 2");
  EXPECT_EQ(message([](GenerateCall& c) { c.top_p = 0; }), "top_p is 0; allowed: above 0 to 1");
  EXPECT_EQ(message([](GenerateCall& c) { c.n = 129; }), "n is 129; allowed: 1 to 128");
  EXPECT_EQ(message([](GenerateCall& c) { c.top_k = -2; }),
            "top_k is -2; allowed: -1 or 0 (off), or at least 1");
}

TEST(CallChecksTest, StopStrings) {
  EXPECT_TRUE(Check([](GenerateCall& c) { c.stop.assign(64, "x"); }).ok());
  EXPECT_TRUE(Check([](GenerateCall& c) { c.stop = {std::string(1024, 'x')}; }).ok());
  for (const std::vector<std::string>& stop :
       {std::vector<std::string>(65, "x"), {std::string(1025, 'x')}, {"a", ""}, {"\xFF"}}) {
    const absl::Status status = Check([&](GenerateCall& c) { c.stop = stop; }).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetDetail(status).param, "stop");
  }
}

TEST(CallChecksTest, StopTokenIds) {
  const auto check = [](std::vector<int64_t> ids) {
    return Check([&](GenerateCall& c) { c.stop_token_ids = std::move(ids); });
  };
  EXPECT_EQ(check({0, 99})->stop_token_ids, (std::vector<int32_t>{0, 99}));
  EXPECT_TRUE(check(std::vector<int64_t>(1024, 1)).ok());
  EXPECT_FALSE(check(std::vector<int64_t>(1025, 1)).ok());
  const absl::Status outside = check({5, 100}).status();
  EXPECT_EQ(outside.message(), "stop_token_ids[1] is 100; token ids go from 0 to 99");
  EXPECT_EQ(GetDetail(outside).param, "stop_token_ids");
  EXPECT_FALSE(check({-1}).ok());
  EXPECT_FALSE(check({int64_t{1} << 32}).ok());
}

TEST(CallChecksTest, LogitRules) {
  const absl::StatusOr<CallOptions> all = Check([](GenerateCall& c) {
    c.presence_penalty = -2;
    c.frequency_penalty = 2;
    c.repetition_penalty = kMaxRepetitionPenalty;
    c.logit_bias = {{0, -100}, {99, 100}};
    c.min_tokens = 5;
  });
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->rules, (LogitRules{.presence_penalty = -2,
                                    .frequency_penalty = 2,
                                    .repetition_penalty = 100,
                                    .bias = {{0, -100}, {99, 100}},
                                    .min_tokens = 5}));
  EXPECT_TRUE(Check([](GenerateCall&) {})->rules.IsEmpty());
  const auto param = [](const std::function<void(GenerateCall&)>& change) {
    return GetDetail(Check(change).status()).param;
  };
  EXPECT_EQ(param([](GenerateCall& c) { c.presence_penalty = 2.01; }), "presence_penalty");
  EXPECT_EQ(param([](GenerateCall& c) { c.frequency_penalty = -2.01; }), "frequency_penalty");
  EXPECT_EQ(param([](GenerateCall& c) { c.repetition_penalty = 0.009; }), "repetition_penalty");
  EXPECT_EQ(param([](GenerateCall& c) { c.repetition_penalty = 100.1; }), "repetition_penalty");
  EXPECT_EQ(param([](GenerateCall& c) { c.logit_bias = {{1, 100.5}}; }), "logit_bias");
  EXPECT_EQ(param([](GenerateCall& c) { c.logit_bias = {{-1, 1}}; }), "logit_bias");
  EXPECT_EQ(param([](GenerateCall& c) { c.logit_bias = {{100, 1}}; }), "logit_bias");
  EXPECT_EQ(param([](GenerateCall& c) { c.min_tokens = -1; }), "min_tokens");
  const auto with_biases = [](int64_t num) {
    return Check([&](GenerateCall& c) { c.logit_bias.assign(num, {1, 0}); }).ok();
  };
  EXPECT_TRUE(with_biases(kMaxLogitBiases));
  EXPECT_FALSE(with_biases(kMaxLogitBiases + 1));
  EXPECT_TRUE(CheckMinTokens(5, 5).ok());
  EXPECT_EQ(GetDetail(CheckMinTokens(6, 5)).param, "min_tokens");
}

TEST(CallChecksTest, EchoIsForPrompts) {
  const auto check = [](auto input) {
    return Check([&](GenerateCall& c) {
             c.input = input;
             c.echo = true;
           })
        .status();
  };
  EXPECT_TRUE(check(std::string("x")).ok());
  EXPECT_EQ(GetDetail(check(std::vector<ChatMessage>{{"user", "x"}})).param, "echo");
}

TEST(CallChecksTest, PriorityHasBounds) {
  const auto with = [](int64_t priority) {
    return Check([&](GenerateCall& c) { c.priority = priority; });
  };
  EXPECT_EQ(Check([](GenerateCall&) {})->priority, 0);
  EXPECT_EQ(with(-20)->priority, -20);
  EXPECT_EQ(with(20)->priority, 20);
  for (const int64_t bad : {int64_t{-21}, int64_t{21}, int64_t{1} << 32, INT64_MIN}) {
    EXPECT_EQ(GetDetail(with(bad).status()).param, "priority") << bad;
  }
  EXPECT_EQ(with(21).status().message(), "priority is 21; allowed: -20 to 20");
}

TEST(CallChecksTest, TracedLayersAreTheModelsAndNamedOnce) {
  ModelInfo model{.attention = "nsa"};
  model.config.num_layers = 3;
  const auto problem = [&](std::vector<int64_t> layers) {
    const GenerateCall call{.trace = TraceWish{.layers = std::move(layers)}};
    const absl::Status status = CheckTrace(call, model);
    EXPECT_EQ(GetDetail(status).code, status.ok() ? "" : "invalid_value");
    return std::string(status.message());
  };
  EXPECT_EQ(problem({}), "");
  EXPECT_EQ(problem({2, 0, 1}), "");
  EXPECT_EQ(problem({0, 3}), "nsa_trace.layers is 3; allowed: 0 to 2");
  EXPECT_EQ(problem({-1}), "nsa_trace.layers is -1; allowed: 0 to 2");
  EXPECT_EQ(problem({1, 2, 1}), "nsa_trace.layers names layer 1 twice");
  model.attention = "full";
  EXPECT_EQ(problem({}), "nsa_trace needs sparse attention; this server runs full attention");
  EXPECT_TRUE(CheckTrace({}, model).ok());
}

TEST(CallChecksTest, CacheSalt) {
  const auto check = [](size_t num_bytes) {
    return Check([&](GenerateCall& c) { c.cache_salt = std::string(num_bytes, 's'); }).status();
  };
  EXPECT_TRUE(check(0).ok());
  EXPECT_TRUE(check(kMaxSaltBytes).ok());
  const absl::Status above = check(kMaxSaltBytes + 1);
  EXPECT_EQ(above.message(), "cache_salt has 257 bytes; at most 256 are allowed");
  EXPECT_EQ(GetDetail(above).param, "cache_salt");
}

TEST(CallChecksTest, ChatCallsItsAlternativesTopLogprobs) {
  const absl::Status status = Check([](GenerateCall& c) {
                                c.input = std::vector<ChatMessage>{{"user", "x"}};
                                c.num_logprobs = 21;
                              }).status();
  EXPECT_EQ(GetDetail(status).param, "top_logprobs");
}

TEST(CallChecksTest, DefaultsAreTheModelsUnlessTheCallSaysOtherwise) {
  const SamplingDefaults defaults{.temperature = 0.7, .top_p = 0.9, .min_p = 0.1, .top_k = 40};
  GenerateCall call;
  SamplingParams sampling = CheckOptions(call, defaults, kVocabSize)->sampling;
  EXPECT_EQ(sampling.temperature, 0.7F);
  EXPECT_EQ(sampling.top_p, 0.9F);
  EXPECT_EQ(sampling.min_p, 0.1F);
  EXPECT_EQ(sampling.top_k, 40);
  call.temperature = 0;
  call.top_p = 1;
  call.min_p = 0;
  call.top_k = -1;
  call.seed = 9;
  sampling = CheckOptions(call, defaults, kVocabSize)->sampling;
  EXPECT_EQ(sampling, (SamplingParams{.temperature = 0, .seed = 9}));
}

TEST(CallChecksTest, ValuesTheSamplerCouldNotStandAreReplacedByWhatTheyMean) {
  EXPECT_EQ(Check([](GenerateCall& c) { c.temperature = 1e-40; })->sampling.temperature, 0.0F);
  EXPECT_EQ(Check([](GenerateCall& c) { c.temperature = 1e-4; })->sampling.temperature, 1e-4F);
  EXPECT_GT(Check([](GenerateCall& c) { c.top_p = 1e-300; })->sampling.top_p, 0.0F);
  EXPECT_EQ(Check([](GenerateCall& c) { c.top_k = int64_t{1} << 40; })->sampling.top_k, 0);
}

TEST(CallChecksTest, Messages) {
  EXPECT_TRUE(
      CheckMessages({{"system", ""}, {"developer", "z"}, {"user", "x"}, {"assistant", "y"}}).ok());
  EXPECT_EQ(GetDetail(CheckMessages({})).param, "messages");
  const absl::Status role = CheckMessages({{"user", "x"}, {"robot", "y"}});
  EXPECT_EQ(role.message(),
            "messages[1].role is 'robot'; allowed: system, developer, user, assistant");
  EXPECT_EQ(GetDetail(role).param, "messages[1].role");
  EXPECT_EQ(GetDetail(CheckMessages({{"user", "\xFF"}})).param, "messages[0].content");
  const absl::Status endless = CheckMessages({{std::string(100000, 'r'), "x"}});
  EXPECT_LT(endless.message().size(), 200u);
}

TEST(CallChecksTest, MaxTokensAgainstTheContext) {
  const auto room = [](int64_t num_prompt_tokens, bool is_chat = false) {
    return ContextRoom{
        .num_prompt_tokens = num_prompt_tokens, .max_request_tokens = 100, .is_chat = is_chat};
  };
  EXPECT_EQ(*CheckMaxTokens(40, room(60)), 40);
  EXPECT_EQ(*CheckMaxTokens(std::nullopt, room(60)), 16);
  EXPECT_EQ(*CheckMaxTokens(std::nullopt, room(84)), 16);
  EXPECT_EQ(*CheckMaxTokens(std::nullopt, room(85)), 15);
  EXPECT_EQ(*CheckMaxTokens(std::nullopt, room(99)), 1);
  EXPECT_EQ(*CheckMaxTokens(std::nullopt, room(10, /*is_chat=*/true)), 90);
  const absl::Status over = CheckMaxTokens(41, room(60)).status();
  EXPECT_EQ(over.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      over.message(),
      "the prompt has 60 tokens and 41 are to be generated; together at most 100 are allowed");
  EXPECT_EQ(GetDetail(over).code, "context_length_exceeded");
  EXPECT_EQ(GetDetail(over).param, "prompt");
  ContextRoom small_cache = room(60);
  small_cache.limited_by_cache = true;
  EXPECT_EQ(CheckMaxTokens(41, small_cache).status().message(),
            std::string(over.message()) + ", which is all that the server's cache holds");
  EXPECT_FALSE(CheckMaxTokens(std::nullopt, room(100)).ok());
  EXPECT_FALSE(CheckMaxTokens(1, room(1000)).ok());
  const absl::Status huge =
      CheckMaxTokens(std::numeric_limits<int64_t>::max(), room(60, /*is_chat=*/true)).status();
  EXPECT_EQ(GetDetail(huge).code, "context_length_exceeded");
  EXPECT_EQ(GetDetail(huge).param, "messages");
}

std::shared_ptr<const GivenConstraint> Given(const std::string& field, ConstraintSpec spec) {
  return std::make_shared<const GivenConstraint>(
      GivenConstraint{.field = field, .spec = std::move(spec)});
}
absl::Status CheckGiven(const ConstraintSpec& spec) {
  return Check([&](GenerateCall& call) { call.constraints = {Given("f", spec)}; }).status();
}

TEST(CallChecksTest, ConstraintsExcludeEachOther) {
  const auto regex = Given("guided_regex", {.kind = ConstraintKind::kRegex, .source = "a"});
  EXPECT_EQ(Check([](GenerateCall&) {})->constraint, nullptr);
  EXPECT_EQ(Check([&](GenerateCall& call) { call.constraints = {regex}; })->constraint, regex);
  const absl::Status both = Check([&](GenerateCall& call) {
                              call.constraints = {Given("response_format", {}), regex};
                            }).status();
  EXPECT_EQ(GetDetail(both).param, "guided_regex");
  EXPECT_EQ(both.message(), "guided_regex and response_format exclude each other");
}

TEST(CallChecksTest, ConstraintsAtBelowAndAboveTheirLimits) {
  const auto choices = [](int64_t num_choices, int64_t bytes) {
    return ConstraintSpec{
        .kind = ConstraintKind::kChoice,
        .choices = std::vector<std::string>(num_choices, std::string(bytes, 'x'))};
  };
  EXPECT_TRUE(CheckGiven(choices(1, 1)).ok());
  EXPECT_TRUE(CheckGiven(choices(kMaxConstraintChoices, 0)).ok());
  EXPECT_EQ(CheckGiven(choices(kMaxConstraintChoices + 1, 0)).message(),
            "f has 1025 entries; at most 1024 are allowed");
  EXPECT_EQ(CheckGiven(choices(0, 0)).message(), "f is empty");
  EXPECT_TRUE(CheckGiven(choices(2, kMaxConstraintBytes / 2)).ok());
  EXPECT_EQ(CheckGiven(choices(2, kMaxConstraintBytes / 2 + 1)).message(),
            "f has 131074 bytes; at most 131072 are allowed");
  ConstraintSpec regex{.kind = ConstraintKind::kRegex};
  for (const int64_t num_bytes : {kMaxConstraintBytes - 1, kMaxConstraintBytes}) {
    regex.source.assign(num_bytes, 'x');
    EXPECT_TRUE(CheckGiven(regex).ok());
  }
  regex.source += "x";
  EXPECT_EQ(GetDetail(CheckGiven(regex)).param, "f");
  regex.source = "\xff";
  EXPECT_EQ(CheckGiven(regex).message(), "f is not valid UTF-8");
}

}  // namespace
}  // namespace nsa
