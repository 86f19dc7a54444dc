#pragma once
// Session: a connection to the server, and generations shown as they grow.

#include <memory>
#include <string>

#include "clients/cli/options.h"
#include "nsa/v1/generation.grpc.pb.h"

namespace nsa::cli {

class Session {
 public:
  explicit Session(const Options& options);

  // Runs one generation: its text to standard output, progress and figures to standard error. Fills
  // in everything of the request but its input. Returns false if it failed; standard error says
  // why.
  bool Run(v1::GenerateRequest request, std::string* text);

 private:
  void ApplyOptions(v1::GenerateRequest* request) const;
  void ShowProgress(const v1::Progress& progress);
  void ClearProgress();

  const Options options_;
  const bool shows_progress_;  // standard error is a terminal
  bool progress_is_shown_ = false;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace nsa::cli
