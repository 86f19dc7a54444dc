// nsa-server: flags -> config -> model -> engine -> service -> transports -> wait.

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/log_writer.h"
#include "server/config.h"
#include "server/doctor.h"
#include "server/exit_timer.h"
#include "server/help.h"
#include "server/server.h"
#include "server/version.h"

namespace nsa {
namespace {

// SIGTERM and SIGINT, blocked in every thread: they are waited for, never handled.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Beyond the times that the parts of a shutdown may take; a part that takes longer hangs.
constexpr absl::Duration kShutdownSlack = absl::Seconds(2);

int WaitForSignal(const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  return signal;
}

// A start is told on stdout to whoever watches it, or as lines of the log to a program.
void ReportPhase(const std::string& phase, const std::string& detail, absl::Duration elapsed) {
  if (GetLogFormat() == LogFormat::kJson) {
    WriteLog(LogLevel::kInfo, "started",
             LogFields().Text("phase", phase).Text("detail", detail).Seconds("seconds", elapsed));
    return;
  }
  std::printf("%-10s %6.2f s  %s\n", phase.c_str(), absl::ToDoubleSeconds(elapsed), detail.c_str());
  std::fflush(stdout);
}

void ReportAddresses(const Server& server, const ServerConfig& config) {
  const std::string host = config.host.find(':') == std::string::npos
                               ? config.host
                               : absl::StrCat("[", config.host, "]");
  const std::string http =
      absl::StrCat(config.tls_cert.empty() ? "http://" : "https://", host, ":", server.http_port());
  if (GetLogFormat() == LogFormat::kJson) {
    WriteLog(LogLevel::kInfo, "serving",
             LogFields()
                 .Text("model", server.model_name())
                 .Text("http", http)
                 .Text("grpc", absl::StrCat(host, ":", server.grpc_port())));
    return;
  }
  std::printf("\n%s is served.\nHTTP  %s\ngRPC  %s:%d\n\nTry:\n", server.model_name().c_str(),
              http.c_str(), host.c_str(), server.grpc_port());
  if (config.console) std::printf("open %s/ in a browser\n", http.c_str());
  std::printf(
      "curl %s/v1/completions -H 'Content-Type: application/json' \\\n"
      "  -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 64}'\n\n",
      http.c_str());
  std::fflush(stdout);
}

// Why there is nothing to serve.
void ReportProblem(const std::string& message) {
  if (GetLogFormat() == LogFormat::kJson) return WriteLog(LogLevel::kError, message);
  FlushLog();  // what came before
  std::fprintf(stderr, "nsa-server: %s\n", message.c_str());
}

// While a model is loaded there is nothing to finish: a signal ends the process.
void EndOnSignalUntil(const std::atomic<bool>& has_started, const std::atomic<bool>& is_lost,
                      const sigset_t& signals) {
  constexpr timespec kPollTime{.tv_sec = 0, .tv_nsec = 20'000'000};
  while (!has_started) {
    const int found = sigtimedwait(&signals, nullptr, &kPollTime);
    if (found <= 0) continue;
    if (has_started) {
      kill(getpid(), found);  // for whoever waits from now on
      return;
    }
    NSA_LOG_INFO << "signal " << found << " before anything was served: ending";
    FlushLog();
    std::_Exit(is_lost ? 1 : 0);
  }
}

int Serve(const ServerConfig& config) {
  SetLogFormat(config.log_format);
  const sigset_t signals = BlockStopSignals();
  signal(SIGPIPE, SIG_IGN);  // a client that leaves is an error of its connection
  StartLogWriter();
  // A lost device ends the process as a signal does, but at once and with status 1.
  std::atomic<bool> is_lost = false;
  std::atomic<bool> has_started = false;
  std::thread while_loading([&] { EndOnSignalUntil(has_started, is_lost, signals); });
  auto server = Server::Start(config, ReportPhase, [&is_lost] {
    is_lost = true;
    kill(getpid(), SIGTERM);
  });
  has_started = true;
  while_loading.join();
  if (!server.ok()) {
    ReportProblem(std::string(server.status().message()));
    return 1;
  }
  ReportAddresses(**server, config);
  const int first_signal = WaitForSignal(signals);
  if (is_lost) {
    NSA_LOG_ERROR << "ending with status 1";
    ExitAfter(kFlushTime + kShutdownSlack, 1);
    (*server)->Drain(absl::Now());
    server->reset();
    return 1;
  }
  NSA_LOG_INFO << "signal " << first_signal << ": running requests have "
               << absl::FormatDuration(config.drain_timeout)
               << " to finish; a second signal ends at once";
  std::thread([signals] {
    const int second_signal = WaitForSignal(signals);
    FlushLog();
    std::_Exit(128 + second_signal);
  }).detach();
  ExitAfter(config.drain_timeout + kFlushTime + kShutdownSlack, 0);
  (*server)->Drain(absl::Now() + config.drain_timeout);
  server->reset();
  NSA_LOG_INFO << "drained";
  return 0;
}

int Diagnose(const ServerConfig& config) {
  const std::vector<Finding> findings = Examine(config, [](const Finding& finding) {
    std::fputs(FormatFinding(finding).c_str(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n%s\n", SummaryOf(findings).c_str());
  return IsHealthy(findings) ? 0 : 1;
}

int Main(const std::vector<std::string>& arguments) {
  const auto command_line = ParseServerConfig(arguments, ProcessEnvironment);
  if (!command_line.ok()) {
    ReportProblem(std::string(command_line.status().message()));
    return 1;
  }
  switch (command_line->action) {
    case CommandLine::Action::kHelp:
      std::fputs(ServerHelp().c_str(), stdout);
      return 0;
    case CommandLine::Action::kVersion:
      std::printf("nsa-server %s\n", ServerVersion().c_str());
      return 0;
    case CommandLine::Action::kDoctor:
      return Diagnose(command_line->config);
    case CommandLine::Action::kServe:
      break;
  }
  const int status = Serve(command_line->config);
  FlushLog();
  return status;
}

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  return nsa::Main(std::vector<std::string>(argv + 1, argv + argc));
}
