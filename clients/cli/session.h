#pragma once
// Session: a connection to the server, and generations shown as they grow.

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>
#include <string>

#include "clients/cli/access.h"
#include "clients/cli/options.h"
#include "nsa/v1/generation.grpc.pb.h"

namespace nsa::cli {

class Session {
 public:
  Session(const Options& options, const Access& access);

  // Runs one generation: its text to standard output, progress and figures to standard error
  // (progress: a line that is rewritten on a terminal, elsewhere lines at least two seconds apart).
  // Fills in everything of the request but its input. Returns false if it failed; standard error
  // says why.
  bool Run(v1::GenerateRequest request, std::string* text);

 private:
  void ApplyOptions(v1::GenerateRequest* request) const;
  void ShowProgress(const v1::Progress& progress);
  void ClearProgress();
  void ShowError(const grpc::Status& status) const;

  const Options options_;
  const std::string api_key_;                            // empty: none is sent
  const bool is_terminal_;                               // standard error
  bool progress_is_shown_ = false;                       // in the terminal's last line
  std::chrono::steady_clock::time_point next_progress_;  // elsewhere: not before
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace nsa::cli
