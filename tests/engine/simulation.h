#pragma once
// Simulation: a random life of an engine core over a fake model, made from one seed and checked
// after every step: requests that arrive, are refused, are cancelled or found to be at their end,
// clients that disconnect with all their choices, steps that stall, fail or find no memory, a
// device that is lost, and a drain.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/admission.h"
#include "engine/engine_core.h"
#include "tests/support/fake_executor.h"

namespace nsa {

// What a simulation went through, summed so that a test can say that nothing was left untried.
struct SimulationCounts {
  int64_t num_preemptions = 0;
  int64_t num_pauses = 0;  // steps in which a running sequence got no page
  int64_t num_step_errors = 0, num_memory_errors = 0, num_row_errors = 0;
  int64_t num_stalls = 0;
  int64_t num_cancelled_waiting = 0, num_cancelled_prefill = 0, num_cancelled_decode = 0;
  int64_t num_disconnects = 0;              // of several choices at once
  int64_t num_found_ends = 0;               // by the request's owner
  int64_t num_rejected = 0;                 // the queue was full
  int64_t num_drains = 0, num_drained = 0;  // requests that ended in time, after a drain began
  int64_t num_losses = 0;
  int64_t num_overtakings = 0;  // a later arrival was served first
  int64_t num_finished[kNumFinishReasons] = {};
  int64_t num_copied_pages = 0;   // in which a prompt ended
  int64_t num_shared_tokens = 0;  // found in pages of other sequences
  int64_t num_unread_tokens = 0;  // sampled for sequences that had ended
  int64_t num_edited_rows = 0;

  void Add(const SimulationCounts& more);
};

class Simulation {
 public:
  // With an executor that runs at most max_steps_ahead steps ahead.
  Simulation(uint64_t seed, int max_steps_ahead);

  // Runs until everything submitted has ended. Returns what is wrong, or nothing.
  std::string Run(SimulationCounts& counts);

 private:
  static constexpr int64_t kNever = -1;

  // A request, and what its sink was told.
  struct Client : TokenSink {
    void OnToken(const TokenEvent& event) override { events.push_back(event); }
    Request request;
    std::vector<int32_t> expected;  // of an undisturbed run
    int64_t arrival_step = 0;
    int64_t cancel_step = kNever;
    int64_t num_wanted_tokens = kNever;  // with so many its owner finds the end: a stop string
    bool is_refused = false;
    int64_t last_step = 0;  // the latest step in which it may end; moves when it is overtaken
    std::vector<TokenEvent> events;
    size_t num_checked = 0;  // of events
    int64_t num_tokens = 0;  // in events
    bool ended = false;
  };

  int64_t Uniform(int64_t low, int64_t high);  // both included
  bool Chance(double probability);
  ExecutorLimits RandomLimits();
  AdmissionLimits RandomAdmission();
  void InjectFaults();
  absl::Status RunStep(const Batch& batch);
  void MakeClients();
  void MakeClient();
  void TakeThePromptOfTheLast(Client& client);
  LogitRules RandomRules();
  void BeginAsAnother(int64_t max_tokens, Request& request);

  void Arrive();
  bool Admits(const Client& client);
  void Expect(Client& client);
  void CancelSome();
  void CountCancelled(const Client& client);
  void Drain();
  void Step();
  bool HasMore() const { return num_arrived_ < clients_.size() || !core_.idle(); }
  void CheckStep();
  void CheckCache();
  static void CheckPool(const PagePool& pool, const std::map<PageId, int64_t>& num_owners);
  void CheckOrder();
  void CheckEvents(Client& client);
  void CheckEnd(const Client& client, const TokenEvent& event);
  void CheckReason(const Client& client, const TokenEvent& event,
                   const std::vector<int32_t>& tokens);
  void CheckShared(const Client& client, int64_t num_shared_tokens);
  void CheckScores(const Client& client, bool has_tokens);
  void CheckTotals();
  void CheckIdle();
  int64_t TokensOf(const Request& request) const;

  uint64_t random_state_;
  double error_rate_ = 0, stall_rate_ = 0;
  ExecutorLimits limits_;
  FakeExecutor executor_;
  absl::Time now_;
  absl::Time step_began_;
  int64_t step_ = 0;
  int64_t loss_step_ = kNever, drain_step_ = kNever, drain_end_ = kNever;
  bool lost_ = false;
  int64_t num_step_tokens_ = 0;  // of all batches
  int64_t num_step_rows_ = 0;    // sampled ones, of the batches without an error
  int64_t num_refused_ = 0;      // by admission_
  SimulationCounts counts_;
  Admission admission_;
  EngineCore core_;
  std::vector<std::shared_ptr<Client>> clients_;  // in order of arrival; the index is the id
  size_t num_arrived_ = 0;
};

}  // namespace nsa
