#include "server/grpc/grpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/grpc/generation_rpc.h"

namespace nsa {
namespace {

void DropLog(gpr_log_func_args* /*args*/) {}

// The logs of gRPC and Protocol Buffers repeat, in formats of their own, what arrives here as a
// status, and name internals.
void SilenceLibraries() {
  static std::once_flag silenced;
  std::call_once(silenced, [] {
    gpr_set_log_function(DropLog);
    google::protobuf::SetLogHandler(nullptr);
  });
}

void SetLimits(const GrpcOptions& options, grpc::ServerBuilder* builder) {
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              static_cast<int>(options.max_streams));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(options.keepalive));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(options.keepalive));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              milliseconds(options.min_ping_interval));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, milliseconds(options.idle_timeout));
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                              milliseconds(options.handshake_timeout));
  // A few bytes may stand for a thousand times as many, before any limit sees them.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  grpc::ResourceQuota quota("nsa-serve");
  builder->SetResourceQuota(quota.Resize(options.max_total_message_bytes));
  // Otherwise a second server on the same port would start and take half of the connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

std::shared_ptr<grpc::ServerCredentials> Credentials(const TlsFiles& tls) {
  if (tls.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  options.pem_key_cert_pairs.push_back({.private_key = tls.key, .cert_chain = tls.certificate});
  return grpc::SslServerCredentials(options);
}

// An IPv6 address needs brackets in front of a port.
std::string JoinHostPort(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

}  // namespace

class GrpcServer::Impl {
 public:
  explicit Impl(const GrpcOptions& options)
      : rpc_({.keys = options.keys,
              .max_queued_bytes = options.max_queued_bytes,
              .on_end = options.on_end,
              .log = options.log}) {}

  absl::Status Start(const GrpcOptions& options);
  int port() const { return port_; }
  void Serve(GenerationService* service) {
    rpc_.Serve(service);
    SetServing(true);
  }
  void SetServing(bool serving) {
    server_->GetHealthCheckService()->SetServingStatus(v1::GenerationService::service_full_name(),
                                                       serving);
  }
  void Shutdown(absl::Time deadline) {
    server_->Shutdown(absl::ToChronoTime(deadline));
    server_->Wait();
  }

 private:
  GenerationRpc rpc_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

absl::Status GrpcServer::Impl::Start(const GrpcOptions& options) {
  SilenceLibraries();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  const std::string address = JoinHostPort(options.host, options.port);
  grpc::ServerBuilder builder;
  SetLimits(options, &builder);
  builder.AddListeningPort(address, Credentials(options.tls), &port_);
  builder.RegisterService(&rpc_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat("gRPC cannot listen on ", address,
                                               ": the port is in use or the address is not local"));
  }
  SetServing(false);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  const absl::Status status = impl->Start(options);
  if (!status.ok()) return status;
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { Shutdown(absl::UnixEpoch()); }

int GrpcServer::port() const { return impl_->port(); }

void GrpcServer::Serve(GenerationService* service) { impl_->Serve(service); }

void GrpcServer::StopServing() { impl_->SetServing(false); }

void GrpcServer::Shutdown(absl::Time deadline) { impl_->Shutdown(deadline); }

}  // namespace nsa
