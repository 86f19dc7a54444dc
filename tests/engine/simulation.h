#pragma once
// Simulation: a random life of an engine core over a fake model, made from one seed and checked
// after every step.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "engine/engine_core.h"
#include "tests/support/fake_executor.h"

namespace nsa {

// What a simulation went through, summed so that a test can say that nothing was left untried.
struct SimulationCounts {
  int64_t num_preemptions = 0;
  int64_t num_pauses = 0;  // steps in which a running sequence got no page
  int64_t num_step_errors = 0, num_row_errors = 0;
  int64_t num_cancelled_waiting = 0, num_cancelled_prefill = 0, num_cancelled_decode = 0;
  int64_t num_finished[kNumFinishReasons] = {};
  int64_t num_shared_tokens = 0;  // found in pages of other sequences
  int64_t num_unread_tokens = 0;  // sampled for sequences that had ended
};

class Simulation {
 public:
  // With an executor that runs at most max_steps_ahead steps ahead.
  Simulation(uint64_t seed, int max_steps_ahead);

  // Runs until everything submitted has ended. What is wrong becomes a GoogleTest failure.
  void Run(SimulationCounts& counts);

 private:
  // A request, and what its sink was told.
  struct Client : TokenSink {
    void OnToken(const TokenEvent& event) override { events.push_back(event); }
    Request request;
    std::vector<int32_t> expected;  // of an undisturbed run
    int64_t arrival_step = 0;
    int64_t cancel_step = -1;  // -1: never
    int64_t last_step = -1;    // the latest step in which it may end, known on arrival
    std::vector<TokenEvent> events;
    size_t num_checked = 0;  // of events
    bool ended = false;
  };

  int64_t Uniform(int64_t low, int64_t high);  // both included
  bool Chance(double probability);
  ExecutorLimits RandomLimits();
  void MakeClients();
  void MakeClient();
  void TakeThePromptOfTheLast(Client& client);
  LogitRules RandomRules();
  void BeginAsAnother(int64_t max_tokens, Request& request);

  void Arrive();
  void CancelSome(SimulationCounts& counts);
  void CheckStep(SimulationCounts& counts);
  void CheckCache();
  static void CheckPool(const PagePool& pool, const std::map<PageId, int64_t>& num_owners);
  void CheckOrder();
  void CheckEvents(Client& client);
  void CheckEnd(const Client& client, const TokenEvent& event);
  static void CheckScores(const Client& client, bool has_tokens);
  void CheckTotals();
  int64_t TokensOf(const Request& request) const;

  uint64_t random_state_;
  double error_rate_ = 0;
  ExecutorLimits limits_;
  FakeExecutor executor_;
  absl::Time now_;
  int64_t step_ = 0;
  int64_t num_step_errors_ = 0, num_row_errors_ = 0;
  int64_t num_step_tokens_ = 0;  // of all batches
  int64_t num_step_rows_ = 0;    // sampled ones, of the batches without an error
  EngineCore core_;
  std::vector<std::shared_ptr<Client>> clients_;  // in order of arrival; the index is the id
  size_t num_arrived_ = 0;
};

}  // namespace nsa
