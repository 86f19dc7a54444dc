#include "server/doctor.h"

#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/machine.h"
#include "engine/engine_core.h"
#include "engine/load_model.h"
#include "server/api_keys.h"
#include "server/listen_check.h"
#include "server/load_options.h"
#include "server/model_folder.h"
#include "server/tls_files.h"

namespace nsa {
namespace {

using Verdict = Finding::Verdict;

constexpr int64_t kOwnFiles = 64;    // beside connections: listeners, logs, the model
constexpr int64_t kBodyBudgets = 3;  // of --max-total-body-bytes: HTTP, gRPC, collected answers
constexpr int64_t kTrialTokens = 8;

std::string Gib(int64_t num_bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(num_bytes) / (int64_t{1} << 30));
}

std::string Counted(int64_t count, const std::string& noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

// Keeps what a run of the engine told.
class TrialSink : public TokenSink {
 public:
  void OnToken(const TokenEvent& event) override {
    num_tokens_ += event.has_token ? 1 : 0;
    if (event.finish == FinishReason::kError) error_ = Text(event.error);
  }
  int64_t num_tokens() const { return num_tokens_; }
  const std::string& error() const { return error_; }

 private:
  int64_t num_tokens_ = 0;
  std::string error_;
};

class Examination {
 public:
  Examination(const ServerConfig& config, const std::function<void(const Finding&)>& tell)
      : config_(config), tell_(tell) {}

  std::vector<Finding> Run() {
    ExamineMachine();
    ExamineDevice();
    ExamineFiles();
    ExaminePort(config_.http_port, "--http-port");
    ExaminePort(config_.grpc_port, "--grpc-port");
    ExamineAccess();
    if (config_.model.empty()) {
      Problem("model", "--model=FOLDER is missing", "Name the folder of the model to serve.");
    } else {
      ExamineText();
      ExamineModel();
    }
    return std::move(findings_);
  }

 private:
  void Add(Finding finding) {
    tell_(finding);
    findings_.push_back(std::move(finding));
  }
  void Ok(const std::string& subject, const std::string& detail) {
    Add({.subject = subject, .detail = detail});
  }
  void Warn(const std::string& subject, const std::string& detail, const std::string& advice) {
    Add({Verdict::kWarning, subject, detail, advice});
  }
  void Problem(const std::string& subject, const std::string& detail, const std::string& advice) {
    Add({Verdict::kProblem, subject, detail, advice});
  }

  void ExamineMachine();
  void ExamineDevice();
  void ExamineFiles();
  void ExaminePort(int64_t port, const std::string& flag);
  void ExamineAccess();
  void ExamineText();
  void ExamineModel();
  void ExamineMemory(const LoadedModel& model);
  void ExamineContext(const LoadedModel& model);
  void ExamineStep(const LoadedModel& model);

  ServerConfig config_;  // complete once the device is known
  const std::function<void(const Finding&)>& tell_;
  std::vector<Finding> findings_;
  std::shared_ptr<Device> device_;  // null: it cannot be used
  std::optional<TextAssets> text_;
};

void Examination::ExamineMachine() {
  const int64_t num_cores = NumUsableCores();
  const MachineMemory memory = GetMachineMemory();
  std::string detail = absl::StrCat(Counted(num_cores, "core"), ", ", Gib(memory.total),
                                    " of memory, ", Gib(memory.available), " available");
  if (memory.container_limit.has_value()) {
    absl::StrAppend(&detail, ", this container's limit ", Gib(*memory.container_limit));
  }
  if (config_.num_threads <= num_cores) return Ok("machine", detail);
  Warn("machine", absl::StrCat(detail, "; --threads is ", config_.num_threads),
       "Use at most one thread per core.");
}

std::string DeviceAdvice(const absl::Status& status) {
  if (absl::IsNotFound(status)) {
    return "nvidia-smi must list the GPU. A container has to be given it: --gpus all, or a limit "
           "of nvidia.com/gpu in Kubernetes.";
  }
  if (absl::IsResourceExhausted(status)) return "nvidia-smi shows who else uses the GPU's memory.";
  if (absl::IsUnimplemented(status)) return "Take the build with CUDA, or use --device=cpu.";
  return "Use a driver and a GPU that fit, or --device=cpu.";
}

void Examination::ExamineDevice() {
  const int num_threads = static_cast<int>(config_.num_threads);
  absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(config_.device, num_threads);
  if (!device.ok()) return Problem("device", Text(device.status()), DeviceAdvice(device.status()));
  device_ = *std::move(device);
  if (absl::Status status = ApplyDeviceDefaults(device_->type(), &config_); !status.ok()) {
    Problem("flags", Text(status), "Change one of the two.");
  }
  const bool falls_back =
      config_.device.kind == DeviceChoice::Kind::kAuto && device_->type() == DeviceType::kCpu;
  if (!falls_back) return Ok("device", device_->description());
  Warn("device", device_->description(),
       "For a GPU see that nvidia-smi lists one and that this is the build with CUDA; "
       "--device=cpu says that the CPU is meant.");
}

void Examination::ExamineFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const int64_t needed = config_.max_connections + kOwnFiles;
  const bool suffices = limit.rlim_cur >= static_cast<rlim_t>(needed);
  const std::string detail = absl::StrCat("at most ", limit.rlim_cur, ", ", config_.max_connections,
                                          " HTTP connections and ", kOwnFiles, " more are allowed");
  if (suffices) return Ok("open files", detail);
  Warn("open files", detail,
       absl::StrCat("Raise the limit (ulimit -n ", needed,
                    ", LimitNOFILE= of systemd) or lower "
                    "--max-connections."));
}

void Examination::ExaminePort(int64_t port, const std::string& flag) {
  const absl::Status status = CheckCanListen(config_.host, port, flag);
  if (status.ok()) {
    return Ok("port", absl::StrCat(flag, " ", port, " of ", config_.host,
                                   port == 0 ? ": any free one" : " is free"));
  }
  Problem("port", Text(status),
          absl::IsInvalidArgument(status)
              ? "Give an address of this machine; 0.0.0.0 stands for all of them."
              : absl::StrCat("End what listens there (ss -ltnp shows it) or choose another ", flag,
                             "."));
}

void Examination::ExamineAccess() {
  if (!config_.api_key_file.empty()) {
    const absl::StatusOr<ApiKeys> keys = ApiKeys::Load(config_.api_key_file);
    if (!keys.ok()) return Problem("access", Text(keys.status()), "Mend the file of keys.");
  }
  if (!config_.tls_cert.empty()) {
    const absl::Status status = LoadTlsFiles(config_.tls_cert, config_.tls_key).status();
    if (!status.ok()) return Problem("access", Text(status), "Mend the certificate or its key.");
  }
  const std::string detail =
      absl::StrCat(config_.api_key_file.empty() ? "no key is asked for" : "keys are asked for",
                   config_.tls_cert.empty() ? ", no TLS" : ", TLS");
  const bool is_local =
      config_.host.starts_with("127.") || config_.host == "::1" || config_.host == "localhost";
  if (is_local || !config_.api_key_file.empty()) return Ok("access", detail);
  Warn("access", absl::StrCat(detail, ", and others can reach ", config_.host),
       "Set --api-key-file, or see that only friends can reach the ports.");
}

void Examination::ExamineText() {
  absl::StatusOr<TextAssets> text = LoadTextAssets(config_.model, config_.chat_template);
  if (!text.ok()) {
    return Problem("tokenizer", Text(text.status()),
                   "--model must be a folder with tokenizer.json or tokenizer.model "
                   "(docs/checkpoint_format.md).");
  }
  Ok("tokenizer", absl::StrCat(text->tokenizer->vocab_size(), " tokens of ", text->tokenizer_file,
                               text->chat_template != nullptr ? ", with a chat template"
                                                              : ", no chat template"));
  if (!text->tokenizer_problem.empty()) {
    Warn("tokenizer", text->tokenizer_problem, "See whether the text of answers is as expected.");
  }
  if (!text->chat_template_problem.empty()) {
    Warn("chat", absl::StrCat("refused: ", text->chat_template_problem),
         "Give a template that can be used: --chat-template=FILE.");
  }
  text_ = *std::move(text);
}

void Examination::ExamineModel() {
  if (device_ == nullptr) return;
  LoadOptions options = LoadOptionsOf(config_);
  options.device = device_;
  options.check_config = [this](const ModelConfig& model) {
    return text_.has_value() ? CheckModelConfig(model, config_, *text_) : absl::OkStatus();
  };
  const auto tell_phase = [&](const std::string& phase, const std::string& detail,
                              absl::Duration elapsed) {
    Ok(phase, absl::StrFormat("%s (%.2f s)", detail, absl::ToDoubleSeconds(elapsed)));
  };
  const absl::StatusOr<LoadedModel> model = LoadModel(config_.model, options, tell_phase);
  if (!model.ok()) {
    const bool needs_memory = absl::IsResourceExhausted(model.status());
    return Problem("model", Text(model.status()),
                   needs_memory
                       ? "Lower --max-num-seqs, --max-batched-tokens or --max-model-tokens, "
                         "free memory, or take a larger device."
                       : "The folder must hold a model of docs/checkpoint_format.md.");
  }
  ExamineMemory(*model);
  ExamineContext(*model);
  ExamineStep(*model);
}

// Of the host at its fullest: a GPU's weights, caches and activations are in memory of its own.
void Examination::ExamineMemory(const LoadedModel& model) {
  const ModelExecutor& executor = *model.executor;
  const bool on_host = device_->type() == DeviceType::kCpu;
  const int64_t model_bytes =
      on_host ? model.weight_bytes + executor.kv_cache_bytes() + executor.workspace_bytes() : 0;
  const int64_t body_bytes = kBodyBudgets * config_.max_total_body_bytes;
  const int64_t needed = model_bytes + config_.max_constraint_bytes + body_bytes;
  const MachineMemory memory = GetMachineMemory();
  const int64_t limit = memory.container_limit.value_or(memory.total);
  const std::string detail =
      absl::StrCat("may take ", Gib(needed), " of ", Gib(limit), ": model and caches ",
                   Gib(model_bytes), ", constraints ", Gib(config_.max_constraint_bytes),
                   ", bodies and answers ", Gib(body_bytes));
  if (needed <= limit) return Ok("memory", detail);
  Warn("memory", detail,
       absl::StrCat("Give it more memory, or lower ", on_host ? "--kv-cache-bytes, " : "",
                    "--max-constraint-bytes or --max-total-body-bytes."));
}

void Examination::ExamineContext(const LoadedModel& model) {
  const ExecutorLimits& limits = model.executor->limits();
  const int64_t held = std::min(limits.max_seq_pages, limits.num_pages) * limits.page_tokens;
  const int64_t wanted =
      config_.max_model_tokens > 0 ? config_.max_model_tokens : model.config.max_position;
  if (held >= wanted) {
    return Ok("context", absl::StrCat("the caches hold the longest request, ", wanted, " tokens, ",
                                      limits.num_pages * limits.page_tokens / wanted, " times"));
  }
  Warn("context",
       absl::StrCat("the caches hold ", held, " tokens, the longest request has ", wanted),
       "Raise --kv-cache-bytes (on a GPU --gpu-memory-utilization), or lower --max-model-tokens.");
}

void Examination::ExamineStep(const LoadedModel& model) {
  EngineCore core(model.executor.get(), kTrialTokens + 1, [] { return absl::Now(); });
  const auto sink = std::make_shared<TrialSink>();
  core.Submit({.prompt = {0}, .max_tokens = kTrialTokens}, sink, absl::Now());
  const absl::Time start = absl::Now();
  std::string error;
  while (!core.idle()) {
    const StepOutcome outcome = core.Step();
    if (!outcome.status.ok()) error = Text(outcome.status);
    for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
    if (outcome.lost) break;
  }
  if (error.empty()) error = sink->error();
  if (!error.empty()) {
    return Problem("generation", error,
                   "Weights that are damaged give numbers that are not finite: compare checksums. "
                   "An error of the GPU: see dmesg for Xid lines.");
  }
  const double milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  Ok("generation", absl::StrFormat("%d tokens, %.2f ms each", sink->num_tokens(),
                                   milliseconds / static_cast<double>(sink->num_tokens())));
}

int64_t NumOf(const std::vector<Finding>& findings, Verdict verdict) {
  return std::count_if(findings.begin(), findings.end(),
                       [&](const Finding& finding) { return finding.verdict == verdict; });
}

}  // namespace

std::vector<Finding> Examine(const ServerConfig& config,
                             const std::function<void(const Finding&)>& tell) {
  return Examination(config, tell).Run();
}

std::string FormatFinding(const Finding& finding) {
  constexpr const char* kVerdicts[] = {"ok", "warning", "problem"};
  std::string text =
      absl::StrFormat("%-8s %-11s %s\n", kVerdicts[static_cast<int>(finding.verdict)],
                      finding.subject, finding.detail);
  if (!finding.advice.empty()) absl::StrAppendFormat(&text, "%21s%s\n", "", finding.advice);
  return text;
}

std::string SummaryOf(const std::vector<Finding>& findings) {
  const int64_t num_warnings = NumOf(findings, Verdict::kWarning);
  const int64_t num_problems = NumOf(findings, Verdict::kProblem);
  const std::string warnings = Counted(num_warnings, "warning");
  if (num_problems > 0) return absl::StrCat(Counted(num_problems, "problem"), ", ", warnings);
  return absl::StrCat("The server will start", num_warnings > 0 ? "; " + warnings : "", ".");
}

bool IsHealthy(const std::vector<Finding>& findings) {
  return NumOf(findings, Verdict::kProblem) == 0;
}

}  // namespace nsa
