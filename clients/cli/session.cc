#include "clients/cli/session.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cstdio>

#include "clients/cli/report.h"

namespace nsa::cli {

Session::Session(const Options& options)
    : options_(options),
      shows_progress_(isatty(STDERR_FILENO) == 1),
      stub_(v1::GenerationService::NewStub(
          grpc::CreateChannel(options.address, grpc::InsecureChannelCredentials()))) {}

bool Session::Run(v1::GenerateRequest request, std::string* text) {
  ApplyOptions(&request);
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  v1::Usage usage;
  while (stream->Read(&response)) {
    if (response.has_progress()) ShowProgress(response.progress());
    if (response.has_usage()) usage = response.usage();
    if (response.text().empty()) continue;
    ClearProgress();
    *text += response.text();
    std::fwrite(response.text().data(), 1, response.text().size(), stdout);
    std::fflush(stdout);
  }
  ClearProgress();
  if (!text->empty()) std::puts("");
  std::fflush(stdout);
  const grpc::Status status = stream->Finish();
  if (!status.ok()) {
    std::fprintf(stderr, "nsa-cli: %s: %s (code %d)\n", options_.address.c_str(),
                 status.error_message().c_str(), static_cast<int>(status.error_code()));
    return false;
  }
  std::fprintf(stderr, "\n%s", FormatReport(usage).c_str());
  return true;
}

void Session::ApplyOptions(v1::GenerateRequest* request) const {
  request->set_model(options_.model);
  request->set_max_tokens(options_.max_tokens);
  if (options_.temperature) request->set_temperature(static_cast<float>(*options_.temperature));
  if (options_.top_p) request->set_top_p(static_cast<float>(*options_.top_p));
  if (options_.top_k) request->set_top_k(static_cast<int32_t>(*options_.top_k));
  if (options_.min_p) request->set_min_p(static_cast<float>(*options_.min_p));
  if (options_.seed) request->set_seed(*options_.seed);
  if (options_.timeout_seconds) request->set_timeout_seconds(*options_.timeout_seconds);
  if (options_.ignore_eos) request->set_ignore_eos(true);
  request->mutable_stop()->Assign(options_.stop.begin(), options_.stop.end());
}

void Session::ShowProgress(const v1::Progress& progress) {
  if (!shows_progress_) return;
  std::fprintf(stderr, "\r%s", FormatProgress(progress).c_str());
  progress_is_shown_ = true;
}

void Session::ClearProgress() {
  if (progress_is_shown_) std::fputs("\r\033[K", stderr);  // erases the line
  progress_is_shown_ = false;
}

}  // namespace nsa::cli
