// What a simulation is made of: the executor's limits and the requests, all from the seed.

#include <algorithm>

#include "engine/constraint/constraint_compiler.h"
#include "gtest/gtest.h"
#include "tests/engine/simulation.h"

namespace nsa {
namespace {

constexpr int32_t kVocabSize = 50;

// Token t is the character '0' + t; the last one may end an output.
std::shared_ptr<const CompiledConstraint> Compile(const std::string& regex,
                                                  const std::vector<int32_t>& eos_tokens) {
  std::vector<std::string> bytes;
  for (int t = 0; t < kVocabSize; ++t) bytes.emplace_back(1, static_cast<char>('0' + t));
  ConstraintCompiler compiler(TokenTable::Create(bytes, eos_tokens).value(), {}, 1 << 20);
  return compiler.Compile({.kind = ConstraintKind::kRegex, .source = regex}).value();
}

const std::vector<std::shared_ptr<const CompiledConstraint>>& Constraints() {
  static const auto& constraints = *new std::vector<std::shared_ptr<const CompiledConstraint>>{
      Compile("[0-9]{5,30}", {kVocabSize - 1}), Compile("(?:A[B-F]{0,3};)*", {kVocabSize - 1}),
      Compile("[0-9A-Z]{3,12}", {})};
  return constraints;
}

}  // namespace

// SplitMix64: the standard library's distributions differ from platform to platform.
int64_t Simulation::Uniform(int64_t low, int64_t high) {
  uint64_t z = random_state_ += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return low + static_cast<int64_t>(z % static_cast<uint64_t>(high - low + 1));
}

bool Simulation::Chance(double probability) {
  return static_cast<double>(Uniform(0, 999'999)) < probability * 1e6;
}

ExecutorLimits Simulation::RandomLimits() {
  const int64_t page_tokens = int64_t{1} << Uniform(0, 4);
  ExecutorLimits limits{.page_tokens = page_tokens,
                        .num_pages = Chance(0.2) ? 200 : Uniform(1, 24),
                        .lookback_tokens = FakeExecutor::kLookbackTokens,
                        .max_num_seqs = Uniform(1, 6),
                        .max_chunk_tokens = Chance(0.5) ? Uniform(1, 6) : Uniform(1, 40),
                        .max_batched_tokens = Chance(0.3) ? Uniform(1, 8) : Uniform(1, 64),
                        .vocab_size = kVocabSize,
                        .max_scored_rows = Uniform(1, 20),
                        .shares_prefixes = Chance(0.7)};
  limits.num_recent_pages = limits.MinRecentPages() + (Chance(0.5) ? Uniform(0, 20) : 0);
  return limits;
}

AdmissionLimits Simulation::RandomAdmission() {
  AdmissionLimits limits;
  if (Chance(0.15)) limits.max_queued_requests = Uniform(1, 4);
  if (Chance(0.1)) limits.max_queued_tokens = Uniform(1, 100);
  if (Chance(0.1)) limits.max_concurrent_requests = Uniform(1, 6);
  return limits;
}

void Simulation::MakeClients() {
  const int64_t num_clients = Uniform(1, 16);
  for (int64_t i = 0; i < num_clients; ++i) MakeClient();
}

void Simulation::MakeClient() {
  auto client = std::make_shared<Client>();
  Request& request = client->request;
  const int64_t capacity = limits_.num_pages * limits_.page_tokens;
  // The longest that fit are the ones that leave no slack.
  const int64_t num_tokens =
      Chance(0.1) ? std::min<int64_t>(capacity, 160) : Uniform(1, std::min<int64_t>(capacity, 80));
  const int64_t num_prompt_tokens = num_tokens == 1 ? 1 : Uniform(1, num_tokens - 1);
  request.max_tokens = std::max<int64_t>(1, num_tokens - num_prompt_tokens);
  if (num_prompt_tokens + request.max_tokens > capacity) return;  // a pool of one token
  if (!clients_.empty() && Chance(0.5)) BeginAsAnother(num_prompt_tokens, request);
  while (static_cast<int64_t>(request.prompt.size()) < num_prompt_tokens) {
    request.prompt.push_back(static_cast<int32_t>(Uniform(0, kVocabSize - 1)));
  }
  if (Chance(0.3)) request.stop_token_ids = {static_cast<int32_t>(Uniform(0, kVocabSize - 1))};
  request.sampling.seed = static_cast<uint64_t>(Uniform(0, 3));
  if (Chance(0.2)) request.rules = RandomRules();
  if (Chance(0.2)) request.constraint = Constraints()[Uniform(0, 2)];
  request.scores_prompt = Chance(0.15);
  if (Chance(0.2)) request.priority = static_cast<int32_t>(Uniform(-3, 3));
  const int64_t previous = clients_.empty() ? 0 : clients_.back()->arrival_step;
  client->arrival_step = previous + (Chance(0.4) ? 0 : Uniform(0, 12));
  if (Chance(0.2)) client->cancel_step = client->arrival_step + Uniform(0, 40);
  if (Chance(0.1)) client->num_wanted_tokens = Uniform(1, 10);
  if (Chance(0.15)) {
    request.deadline = now_ + absl::Seconds(client->arrival_step + Uniform(0, 60));
  }
  if (!clients_.empty() && Chance(0.2)) TakeThePromptOfTheLast(*client);
  client->expected = FakeContinuation(request, kVocabSize);
  request.id = clients_.size();
  clients_.push_back(std::move(client));
}

// As a further choice of the same call, which disconnects as a whole.
void Simulation::TakeThePromptOfTheLast(Client& client) {
  const Client& last = *clients_.back();
  Request& request = client.request;
  request.prompt = last.request.prompt;
  request.cache_salt = last.request.cache_salt;
  request.max_tokens = last.request.max_tokens;
  request.priority = last.request.priority;
  request.same_prompt_as = last.request.same_prompt_as.value_or(last.request.id);
  request.counts_prompt = false;
  client.arrival_step = last.arrival_step;
  client.cancel_step = last.cancel_step;
}

LogitRules Simulation::RandomRules() {
  LogitRules rules;
  if (Chance(0.5)) rules.frequency_penalty = static_cast<float>(Uniform(0, 4)) / 2;
  if (Chance(0.5)) rules.repetition_penalty = 1.25F;
  if (Chance(0.3)) rules.bias = {{.token = static_cast<int32_t>(Uniform(0, 9)), .bias = 1}};
  rules.min_tokens = Uniform(0, 3);
  return rules;
}

// With the beginning of an earlier request, its answer included.
void Simulation::BeginAsAnother(int64_t max_tokens, Request& request) {
  const Client& other = *clients_[Uniform(0, static_cast<int64_t>(clients_.size()) - 1)];
  std::vector<int32_t> tokens = other.request.prompt;
  tokens.insert(tokens.end(), other.expected.begin(), other.expected.end());
  const auto num_tokens = Uniform(1, std::min<int64_t>(max_tokens, std::ssize(tokens)));
  request.prompt.assign(tokens.begin(), tokens.begin() + num_tokens);
  request.cache_salt = Chance(0.9) ? other.request.cache_salt : "another";
}

}  // namespace nsa
