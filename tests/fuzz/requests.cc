#include "tests/fuzz/requests.h"

#include "base/check.h"
#include "engine/request_check.h"
#include "server/error_detail.h"
#include "tests/support/service_harness.h"

namespace nsa::fuzz {

void PrepareCalls(std::span<const GenerateCall> calls) {
  static ServiceHarness& harness = *new ServiceHarness();
  const auto prepared = harness.service.Prepare(calls);
  if (!prepared.ok()) {
    NSA_CHECK(!absl::IsInternal(prepared.status())) << prepared.status().ToString();
    return;
  }
  NSA_CHECK_EQ(prepared->size(), calls.size());
  for (const PreparedCall& call : *prepared) {
    const absl::Status status = CheckRequest(call.request, harness.executor.limits(),
                                             harness.service.model().max_request_tokens);
    NSA_CHECK(status.ok()) << status.ToString();
    NSA_CHECK(call.num_choices >= 1 && call.num_choices <= 128) << call.num_choices;
  }
}

}  // namespace nsa::fuzz
