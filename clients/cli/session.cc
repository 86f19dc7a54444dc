#include "clients/cli/session.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cstdio>

#include "clients/cli/report.h"

namespace nsa::cli {
namespace {

constexpr auto kProgressInterval = std::chrono::seconds(2);

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Access& access) {
  if (!access.uses_tls) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({.pem_root_certs = access.trusted_certificates});
}

}  // namespace

Session::Session(const Options& options, const Access& access)
    : options_(options),
      api_key_(access.api_key),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      channel_(grpc::CreateChannel(options.address, Credentials(access))),
      stub_(v1::GenerationService::NewStub(channel_)) {}

bool Session::Run(v1::GenerateRequest request, std::string* text) {
  ApplyOptions(&request);
  grpc::ClientContext context;
  if (!api_key_.empty()) context.AddMetadata("authorization", "Bearer " + api_key_);
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
    ShowError(status);
    return false;
  }
  std::fprintf(stderr, "\n%s", FormatReport(usage).c_str());
  return true;
}

void Session::ApplyOptions(v1::GenerateRequest* request) const {
  request->set_model(options_.model);
  request->set_max_tokens(options_.max_tokens);
  if (options_.temperature) request->set_temperature(*options_.temperature);
  if (options_.top_p) request->set_top_p(*options_.top_p);
  if (options_.top_k) request->set_top_k(static_cast<int32_t>(*options_.top_k));
  if (options_.min_p) request->set_min_p(*options_.min_p);
  if (options_.seed) request->set_seed(*options_.seed);
  if (options_.timeout_seconds) request->set_timeout_seconds(*options_.timeout_seconds);
  if (options_.ignore_eos) request->set_ignore_eos(true);
  request->mutable_stop()->Assign(options_.stop.begin(), options_.stop.end());
}

void Session::ShowProgress(const v1::Progress& progress) {
  if (is_terminal_) {
    std::fprintf(stderr, "\r%s", FormatProgress(progress).c_str());
    progress_is_shown_ = true;
    return;
  }
  // With the whole prompt done there is nothing left to wait for.
  const auto now = std::chrono::steady_clock::now();
  const bool is_done = progress.prompt_tokens_done() >= progress.prompt_tokens_total();
  if (is_done || now < next_progress_) return;
  std::fprintf(stderr, "%s\n", FormatProgress(progress).c_str());
  next_progress_ = now + kProgressInterval;
}

void Session::ClearProgress() {
  if (progress_is_shown_) std::fputs("\r\033[K", stderr);  // erases the line
  progress_is_shown_ = false;
}

void Session::ShowError(const grpc::Status& status) const {
  // Without a connection the message is the library's, about its own attempts.
  const grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/false);
  const bool is_unreachable =
      status.error_code() == grpc::StatusCode::UNAVAILABLE &&
      (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_CONNECTING);
  std::fprintf(stderr, "nsa-cli: %s: %s: %s\n", options_.address.c_str(),
               StatusName(status.error_code()).c_str(),
               is_unreachable ? "no server can be reached there" : status.error_message().c_str());
}

}  // namespace nsa::cli
