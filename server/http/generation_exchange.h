#pragma once
// GenerationExchange: one generation request between the service and a connection. Submits the
// calls once their constraint is compiled, turns their events into a response, and cancels them
// when the client leaves.

#include <memory>
#include <vector>

#include "base/byte_budget.h"
#include "server/generation_service.h"
#include "server/http/http_message.h"
#include "server/http/openai_types.h"
#include "server/http/response_shape.h"
#include "server/request_log.h"

namespace nsa {

// Everything but the observers' OnEvent runs in the responder's order, one at a time.
class GenerationExchange : public std::enable_shared_from_this<GenerationExchange> {
 public:
  // Answers the request through the responder, now or later.
  struct Client {
    std::shared_ptr<HttpResponder> responder;
    std::shared_ptr<RequestRecord> record;
    std::shared_ptr<ByteBudget> whole_answers;  // as ApiContext
  };
  static void Start(GenerationService* service, const GenerationRequest& request,
                    std::unique_ptr<ResponseShape> shape, Client client);

 private:
  class Observer;
  GenerationExchange(bool stream, std::unique_ptr<ResponseShape> shape, Client client);

  void Begin(GenerationService* service, const std::vector<GenerateCall>& calls);
  void Run(GenerationService* service, absl::StatusOr<std::vector<PreparedCall>> completed);
  absl::Status Submit(GenerationService* service, std::vector<PreparedCall> calls);
  void OnEvent(size_t prompt, const GenerateEvent& event);
  void OnDelta(int64_t choice, const GenerateEvent& event);
  void OnDone(const Usage& usage);
  void Fail(const absl::Status& status);
  void Leave(GenerationService* service);
  void CancelAll();

  const bool stream_;
  const std::unique_ptr<ResponseShape> shape_;
  const std::shared_ptr<HttpResponder> responder_;
  const std::shared_ptr<RequestRecord> record_;
  std::vector<std::unique_ptr<GenerateHandle>> handles_;         // one per prompt; empty once ended
  ConstraintQueue::Ticket ticket_ = ConstraintQueue::kNoTicket;  // while a constraint is compiled
  int64_t choices_per_prompt_ = 1;
  size_t num_running_ = 0;  // prompts whose last event is still to come
  bool ended_ = false;
  // Not streaming: what has come so far.
  std::vector<CollectedChoice> choices_;
  int64_t num_collected_bytes_ = 0;
  const std::shared_ptr<ByteShare> share_;  // covers them; null: there is no limit
  Usage usage_;                             // of the prompts that are done
};

}  // namespace nsa
