#include "tests/engine/simulation.h"

#include <algorithm>

#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr absl::Duration kStepTime = absl::Seconds(1);
constexpr int64_t kMaxSteps = 100'000;  // far more than any seed takes

bool IsSampled(const SampleRow& row) { return row.scored_token < 0; }

}  // namespace

void SimulationCounts::Add(const SimulationCounts& more) {
  num_preemptions += more.num_preemptions;
  num_pauses += more.num_pauses;
  num_step_errors += more.num_step_errors;
  num_memory_errors += more.num_memory_errors;
  num_row_errors += more.num_row_errors;
  num_stalls += more.num_stalls;
  num_cancelled_waiting += more.num_cancelled_waiting;
  num_cancelled_prefill += more.num_cancelled_prefill;
  num_cancelled_decode += more.num_cancelled_decode;
  num_disconnects += more.num_disconnects;
  num_found_ends += more.num_found_ends;
  num_rejected += more.num_rejected;
  num_drains += more.num_drains;
  num_drained += more.num_drained;
  num_losses += more.num_losses;
  num_overtakings += more.num_overtakings;
  for (int i = 0; i < kNumFinishReasons; ++i) num_finished[i] += more.num_finished[i];
  num_copied_pages += more.num_copied_pages;
  num_shared_tokens += more.num_shared_tokens;
  num_unread_tokens += more.num_unread_tokens;
  num_edited_rows += more.num_edited_rows;
}

Simulation::Simulation(uint64_t seed, int max_steps_ahead)
    : random_state_(seed),
      error_rate_(Chance(0.2) ? 0.05 : 0),
      stall_rate_(Chance(0.2) ? 0.05 : 0),
      limits_(RandomLimits()),
      executor_(limits_, max_steps_ahead),
      now_(absl::FromUnixSeconds(1'000'000)),
      admission_(RandomAdmission()),
      core_(&executor_, limits_.num_pages * limits_.page_tokens, [this] { return now_; }) {
  MakeClients();
  InjectFaults();
}

void Simulation::InjectFaults() {
  executor_.on_step = [this](const Batch& batch) { return RunStep(batch); };
  executor_.is_finite = [this](const SampleRow& row) {
    if (!IsSampled(row) || !Chance(error_rate_ / 5)) return true;
    ++counts_.num_row_errors;
    return false;
  };
  if (Chance(0.03)) loss_step_ = Uniform(0, 60);
  if (Chance(0.15)) {
    drain_step_ = Uniform(0, 60);
    drain_end_ = drain_step_ + Uniform(0, 30);
  }
}

absl::Status Simulation::RunStep(const Batch& batch) {
  num_step_tokens_ += batch.num_tokens();
  counts_.num_copied_pages += std::ssize(batch.page_copies);
  counts_.num_edited_rows += batch.num_edited_rows;
  if (Chance(stall_rate_)) {
    ++counts_.num_stalls;
    now_ += kStepTime * Uniform(1, 40);
  }
  if (!Chance(error_rate_)) {
    num_step_rows_ += std::count_if(batch.rows.begin(), batch.rows.end(), IsSampled);
    return absl::OkStatus();
  }
  if (Chance(0.5)) {
    ++counts_.num_memory_errors;
    return absl::ResourceExhaustedError("injected: no memory for the step");
  }
  ++counts_.num_step_errors;
  return absl::InternalError("injected");
}

std::string Simulation::Run(SimulationCounts& counts) {
  testing::TestPartResultArray failures;
  {
    const testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    while (HasMore() && failures.size() == 0) Step();
    if (failures.size() == 0) CheckTotals();
    if (failures.size() == 0) CheckIdle();
  }
  if (failures.size() > 0) return failures.GetTestPartResult(0).message();
  counts_.num_shared_tokens = core_.stats().num_prefix_shared_tokens;
  counts_.num_preemptions = core_.stats().num_preemptions;
  counts_.num_unread_tokens =
      num_step_rows_ - counts_.num_row_errors - core_.stats().num_generated_tokens;
  for (int i = 0; i < kNumFinishReasons; ++i) {
    counts_.num_finished[i] = core_.stats().num_finished[i];
  }
  counts.Add(counts_);
  return "";
}

void Simulation::Step() {
  ASSERT_LT(step_, kMaxSteps) << "the engine does not come to rest";
  Drain();
  Arrive();
  CancelSome();
  if (step_ == loss_step_) executor_.Lose();
  step_began_ = now_;
  StepOutcome outcome = core_.Step();
  for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
  if (outcome.lost && !lost_) ++counts_.num_losses;
  lost_ = outcome.lost;
  CheckStep();
  now_ += kStepTime;
  ++step_;
}

int64_t Simulation::TokensOf(const Request& request) const {
  return static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
}

void Simulation::Arrive() {
  while (num_arrived_ < clients_.size() && clients_[num_arrived_]->arrival_step <= step_) {
    const std::shared_ptr<Client>& client = clients_[num_arrived_++];
    if (!Admits(*client)) {
      client->is_refused = client->ended = true;
      continue;
    }
    Expect(*client);
    core_.Submit(client->request, client, now_);
  }
}

// As Engine::Submit.
bool Simulation::Admits(const Client& client) {
  if (lost_ || (drain_step_ != kNever && step_ >= drain_step_)) return false;
  AdmissionLoad waiting;
  for (const Sequence* sequence : core_.scheduler().waiting()) {
    ++waiting.num_requests;
    const bool was_preempted = sequence->times.num_preemptions > 0;
    if (!was_preempted && sequence->request.counts_prompt) {
      waiting.num_tokens += sequence->num_prompt_tokens;
    }
  }
  const absl::Status status =
      admission_.Check({.num_requests = 1, .num_tokens = PromptTokensOfCall(client.request)},
                       waiting, core_.stats().num_running);
  if (!status.ok()) ++num_refused_;
  return status.ok();
}

// The scheduler's promise: the first in order advances by a token in each step, so a sequence ends
// within as many steps as those before it and itself can have tokens; where a later one overtakes
// it, they may all begin anew. A choice that waits for the prompt of another, and a prompt that
// waits for rows to be scored, may be passed by those behind it. An executor that runs ahead learns
// of an end a step later.
void Simulation::Expect(Client& client) {
  const auto steps_of = [this](const Client& some) {
    return TokensOf(some.request) + executor_.max_steps_ahead();
  };
  const auto rank = [](const Client& some) {
    return some.arrival_step * kStepTime + some.request.priority * kPriorityHeadStart;
  };
  int64_t num_steps = steps_of(client) + executor_.max_steps_ahead();
  for (size_t id = 0; id + 1 < num_arrived_; ++id) {
    if (!clients_[id]->ended) num_steps += steps_of(*clients_[id]);
  }
  client.last_step = step_ + num_steps;
  for (size_t id = 0; id + 1 < num_arrived_; ++id) {
    Client& other = *clients_[id];
    const bool may_be_passed =
        other.request.same_prompt_as.has_value() || other.request.scores_prompt;
    if (other.ended || (rank(other) <= rank(client) && !may_be_passed)) continue;
    ++counts_.num_overtakings;
    other.last_step += num_steps;
  }
}

// Requests and steps as Engine does both: the orders come before the step.
void Simulation::CancelSome() {
  RequestId call = 0;
  int64_t num_of_call = 0;
  for (size_t id = 0; id < num_arrived_; ++id) {
    const Client& client = *clients_[id];
    if (client.num_tokens == client.num_wanted_tokens && !client.ended) {
      ++counts_.num_found_ends;
      core_.Cancel(client.request.id, FinishReason::kStop);
    }
    if (client.cancel_step != step_) continue;
    const RequestId its_call = client.request.same_prompt_as.value_or(id);
    num_of_call = client.ended ? 0 : its_call == call ? num_of_call + 1 : 1;
    call = its_call;
    if (num_of_call == 2) ++counts_.num_disconnects;
    CountCancelled(client);
    core_.Cancel(client.request.id);
  }
}

void Simulation::CountCancelled(const Client& client) {
  const Scheduler& scheduler = core_.scheduler();
  const auto is_client = [&](const Sequence* s) { return s->request.id == client.request.id; };
  if (std::any_of(scheduler.waiting().begin(), scheduler.waiting().end(), is_client)) {
    ++counts_.num_cancelled_waiting;
  }
  for (const Sequence* sequence : scheduler.running()) {
    if (!is_client(sequence)) continue;
    ++(sequence->state == SequenceState::kDecode ? counts_.num_cancelled_decode
                                                 : counts_.num_cancelled_prefill);
  }
}

// As Engine::Drain: what has not ended by the deadline is cancelled.
void Simulation::Drain() {
  if (step_ == drain_step_) ++counts_.num_drains;
  if (step_ == drain_end_) core_.CancelAll();
}

}  // namespace nsa
