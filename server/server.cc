#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "engine/load_model.h"
#include "server/grpc/grpc_server.h"
#include "server/http/api_context.h"
#include "server/http/http_server.h"
#include "server/http/routes.h"
#include "server/listen_check.h"
#include "server/load_options.h"
#include "server/metrics/metrics.h"
#include "server/model_folder.h"
#include "server/version.h"

namespace nsa {
namespace {

std::string TokenizerLine(const TextAssets& text) {
  return absl::StrCat(
      text.tokenizer->vocab_size(), " tokens of ", text.tokenizer_file,
      text.tokenizer_problem.empty() ? "" : absl::StrCat(" (", text.tokenizer_problem, ")"), ", ",
      text.chat_template != nullptr ? "a chat template" : "no chat template");
}

std::shared_ptr<const RequestLogOptions> MakeRequestLog(const ServerConfig& config) {
  RequestLogOptions options{.access = config.access_log, .prompt_bytes = config.log_prompts_bytes};
  for (const Route& route : Routes()) {
    if (route.access == RouteAccess::kProbe) options.probe_routes.emplace_back(route.path);
  }
  return std::make_shared<const RequestLogOptions>(std::move(options));
}

std::vector<std::string> RoutePaths() {
  std::vector<std::string> paths;
  for (const Route& route : Routes()) paths.emplace_back(route.path);
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerConfig& config, StartupReporter report, std::function<void()> on_lost)
      : config_(config), report_(std::move(report)), on_lost_(std::move(on_lost)) {}

  absl::Status Start();
  int http_port() const { return http_->port(); }
  int grpc_port() const { return grpc_->port(); }
  const std::string& model_name() const { return service_->model().name; }
  void Drain(absl::Time deadline);

 private:
  absl::Status CheckPorts() const;
  absl::Status StartDevice();
  absl::Status LoadText();
  absl::Status LoadWeights();
  absl::Status LoadAccess();
  absl::Status MakeService();
  void MakeConstraints(const std::vector<int32_t>& eos_tokens);
  void MakeMetrics();
  absl::Status Listen();
  absl::Status ListenGrpc(const std::shared_ptr<const RequestLogOptions>& log);
  absl::Status ListenHttp(const std::shared_ptr<const RequestLogOptions>& log);
  void Serve();
  void Report(const std::string& phase, const std::string& detail, absl::Duration elapsed);

  ServerConfig config_;  // complete once the device is known
  const StartupReporter report_;
  const std::function<void()> on_lost_;
  std::vector<std::pair<std::string, double>> phases_;  // and their seconds
  // In the order of their dependencies: each uses those above it.
  TextAssets text_;
  std::shared_ptr<Device> device_;
  LoadedModel model_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<ConstraintQueue> constraints_;  // null: the vocabulary cannot be constrained
  std::unique_ptr<Metrics> metrics_;
  HttpAccess access_;
  TlsFiles tls_;
  ApiContext loading_api_, api_;         // before and since there is a model
  std::atomic<bool> is_serving_{false};  // from then on
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<HttpServer> http_;
};

absl::Status Server::Impl::Start() {
  NSA_RETURN_IF_ERROR(CheckPorts());
  NSA_RETURN_IF_ERROR(LoadAccess());
  NSA_RETURN_IF_ERROR(Listen());  // what asks meanwhile is told that the model is being loaded
  NSA_RETURN_IF_ERROR(StartDevice());
  NSA_RETURN_IF_ERROR(LoadText());
  NSA_RETURN_IF_ERROR(LoadWeights());
  NSA_RETURN_IF_ERROR(MakeService());
  MakeMetrics();
  Serve();
  return absl::OkStatus();
}

absl::Status Server::Impl::CheckPorts() const {
  NSA_RETURN_IF_ERROR(CheckCanListen(config_.host, config_.http_port, "--http-port"));
  return CheckCanListen(config_.host, config_.grpc_port, "--grpc-port");
}

absl::Status Server::Impl::LoadAccess() {
  access_.protect_probes = config_.protect_probes;
  access_.cors = CorsPolicy(config_.cors_origins);
  if (!config_.api_key_file.empty()) {
    NSA_ASSIGN_OR_RETURN(access_.keys, ApiKeys::Load(config_.api_key_file));
  }
  if (!config_.tls_cert.empty()) {
    NSA_ASSIGN_OR_RETURN(tls_, LoadTlsFiles(config_.tls_cert, config_.tls_key));
  }
  return absl::OkStatus();
}

absl::Status Server::Impl::StartDevice() {
  const absl::Time start = absl::Now();
  NSA_ASSIGN_OR_RETURN(device_, OpenDevice(config_.device, static_cast<int>(config_.num_threads)));
  NSA_RETURN_IF_ERROR(ApplyDeviceDefaults(device_->type(), &config_));
  Report("device", device_->description(), absl::Now() - start);
  return absl::OkStatus();
}

void Server::Impl::Report(const std::string& phase, const std::string& detail,
                          absl::Duration elapsed) {
  phases_.emplace_back(phase, absl::ToDoubleSeconds(elapsed));
  report_(phase, detail, elapsed);
}

absl::Status Server::Impl::LoadText() {
  const absl::Time start = absl::Now();
  std::error_code error;
  if (!std::filesystem::is_directory(config_.model, error)) {
    return absl::NotFoundError(absl::StrCat("--model: there is no folder ", config_.model));
  }
  NSA_ASSIGN_OR_RETURN(text_, LoadTextAssets(config_.model, config_.chat_template));
  if (!text_.chat_template_problem.empty()) {
    NSA_LOG_WARNING << "chat is refused, the model's template cannot be used: "
                    << text_.chat_template_problem;
  }
  Report("tokenizer", TokenizerLine(text_), absl::Now() - start);
  return absl::OkStatus();
}

absl::Status Server::Impl::LoadWeights() {
  const auto report = [this](const std::string& phase, const std::string& detail,
                             absl::Duration elapsed) { Report(phase, detail, elapsed); };
  LoadOptions options = LoadOptionsOf(config_);
  options.device = device_;
  options.check_config = [this](const ModelConfig& config) {
    return CheckModelConfig(config, config_, text_);
  };
  NSA_ASSIGN_OR_RETURN(model_, LoadModel(config_.model, options, report));
  if (model_.attention_overridden) {
    NSA_LOG_WARNING << "ATTENTION OVERRIDDEN: --attention=" << config_.attention
                    << " reads the whole cache at every step. For measurement only.";
  }
  return absl::OkStatus();
}

absl::Status Server::Impl::MakeService() {
  NSA_ASSIGN_OR_RETURN(const int64_t max_model_tokens, MaxModelTokens(config_, model_.config));
  const EngineOptions options{
      .admission = {.max_queued_requests = config_.max_queued_requests,
                    .max_queued_tokens = config_.max_queued_tokens,
                    .max_concurrent_requests = config_.max_concurrent_requests},
      .max_model_tokens = max_model_tokens,
      .on_lost = on_lost_};
  engine_ = std::make_unique<Engine>(options, model_.executor.get());
  GenerationService::Dependencies dependencies{.engine = engine_.get(),
                                               .tokenizer = text_.tokenizer.get(),
                                               .chat_template = text_.chat_template.get(),
                                               .tokenizer_info = text_.info,
                                               .defaults = text_.defaults,
                                               .liveness_timeout = config_.liveness_timeout};
  ModelInfo& info = dependencies.model;
  info.name =
      config_.served_model_name.empty() ? ModelNameOf(config_.model) : config_.served_model_name;
  info.attention = model_.attention;
  info.config = model_.config;
  if (info.config.eos_tokens.empty()) info.config.eos_tokens = text_.eos_tokens;
  MakeConstraints(info.config.eos_tokens);
  dependencies.constraints = constraints_.get();
  info.max_request_tokens = engine_->max_request_tokens();
  info.limited_by_cache = info.max_request_tokens < max_model_tokens;
  info.page_tokens = model_.executor->limits().page_tokens;
  info.num_pages = model_.executor->limits().num_pages;
  info.created = absl::Now();
  service_ = std::make_unique<GenerationService>(std::move(dependencies));
  return absl::OkStatus();
}

void Server::Impl::MakeConstraints(const std::vector<int32_t>& eos_tokens) {
  const auto tokens = TokenTable::Create(*text_.tokenizer, eos_tokens);
  if (!tokens.ok()) {
    NSA_LOG_WARNING << "constraints are refused, the model's vocabulary cannot be used: "
                    << tokens.status().message();
    return;
  }
  ConstraintQueueOptions options{.cache_bytes = config_.max_constraint_bytes / 4};
  options.limits.max_total_bytes = config_.max_constraint_bytes;
  constraints_ = std::make_unique<ConstraintQueue>(*tokens, options);
}

void Server::Impl::MakeMetrics() {
  const ModelInfo& info = service_->model();
  Metrics::Options options{.engine = {.model_name = info.name,
                                      .page_tokens = info.page_tokens,
                                      .num_pages = info.num_pages,
                                      .stats = [this] { return service_->engine_stats(); }},
                           .version = ServerVersion(),
                           .architecture = info.config.architecture,
                           .attention = info.attention,
                           .http_routes = RoutePaths(),
                           .grpc_methods = {"Generate", "Tokenize", "Detokenize", "GetModelInfo"}};
  metrics_ = std::make_unique<Metrics>(std::move(options));
  for (const auto& [phase, seconds] : phases_) metrics_->SetStartupPhase(phase, seconds);
  api_ = MakeApiContext(service_.get(), metrics_.get(), ServerVersion());
  api_.access = access_;
  api_.whole_answers = std::make_shared<ByteBudget>(config_.max_total_body_bytes);
  if (config_.strict) api_.unknown_fields = UnknownFields::kRefused;
  api_.serves_console = config_.console;
}

absl::Status Server::Impl::Listen() {
  const absl::Time start = absl::Now();
  const auto request_log = MakeRequestLog(config_);
  NSA_RETURN_IF_ERROR(ListenGrpc(request_log));
  NSA_RETURN_IF_ERROR(ListenHttp(request_log));
  Report("listen", absl::StrCat("port ", http_->port(), " for HTTP, ", grpc_->port(), " for gRPC"),
         absl::Now() - start);
  return absl::OkStatus();
}

absl::Status Server::Impl::ListenGrpc(const std::shared_ptr<const RequestLogOptions>& log) {
  GrpcOptions options{.host = config_.host,
                      .port = static_cast<int>(config_.grpc_port),
                      .max_message_bytes = config_.max_body_bytes,
                      .max_total_message_bytes = config_.max_total_body_bytes,
                      .max_streams = config_.max_streams,
                      .idle_timeout = config_.idle_timeout,
                      .keys = access_.keys.has_value() ? &*access_.keys : nullptr,
                      .tls = tls_,
                      .log = log};
  options.on_end = [this](std::string_view method, int code) {
    if (is_serving_) metrics_->CountGrpcCall(method, code);
  };
  NSA_ASSIGN_OR_RETURN(grpc_, GrpcServer::Start(options));
  return absl::OkStatus();
}

absl::Status Server::Impl::ListenHttp(const std::shared_ptr<const RequestLogOptions>& log) {
  HttpOptions options{.host = config_.host,
                      .port = static_cast<int>(config_.http_port),
                      .max_header_bytes = config_.max_header_bytes,
                      .max_body_bytes = config_.max_body_bytes,
                      .max_total_body_bytes = config_.max_total_body_bytes,
                      .max_connections = config_.max_connections,
                      .idle_timeout = config_.idle_timeout,
                      .read_timeout = config_.read_timeout,
                      .tls = tls_,
                      .log = log};
  options.on_response = [this](std::string_view route, int status) {
    if (is_serving_) metrics_->CountHttpRequest(route, status);
  };
  loading_api_.version = ServerVersion();
  loading_api_.access = access_;
  loading_api_.serves_console = config_.console;
  SetApiHooks(&loading_api_, &options);
  NSA_ASSIGN_OR_RETURN(
      http_, HttpServer::Start(
                 std::move(options),
                 [this, loading = MakeApiHandler(&loading_api_), serving = MakeApiHandler(&api_)](
                     HttpRequest request, std::shared_ptr<HttpResponder> to) {
                   const HttpHandler& handler = is_serving_ ? serving : loading;
                   handler(std::move(request), std::move(to));
                 }));
  return absl::OkStatus();
}

void Server::Impl::Serve() {
  is_serving_ = true;
  grpc_->Serve(service_.get());
}

void Server::Impl::Drain(absl::Time deadline) {
  grpc_->StopServing();
  if (constraints_ != nullptr) constraints_->EndAt(deadline);
  engine_->Drain(deadline);  // meanwhile both transports answer new requests: unavailable
  const absl::Time flushed = absl::Now() + kFlushTime;
  http_->Shutdown(flushed);
  grpc_->Shutdown(flushed);
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config,
                                                      const StartupReporter& report,
                                                      std::function<void()> on_lost) {
  auto impl = std::make_unique<Impl>(config, report, std::move(on_lost));
  NSA_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() = default;

int Server::http_port() const { return impl_->http_port(); }
int Server::grpc_port() const { return impl_->grpc_port(); }
const std::string& Server::model_name() const { return impl_->model_name(); }

void Server::Drain(absl::Time deadline) { impl_->Drain(deadline); }

}  // namespace nsa
