#include "server/help.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/config.h"

namespace nsa {
namespace {

constexpr size_t kWidth = 100;
constexpr int kFlagWidth = 30;

constexpr char kHead[] =
    R"(nsa-server: serves a language model with Native Sparse Attention over HTTP and gRPC

Usage
  nsa-server --model=FOLDER [flags]         serves the model until SIGTERM or SIGINT
  nsa-server doctor --model=FOLDER [flags]  says whether that will work on this machine, and if not,
                                            what to do; status 1 if it will not
  nsa-server --help | --version

A flag is --name=value or --name value. One that is not given is taken from the environment, where
--http-port is NSA_HTTP_PORT.
)";

// A heading of --help and the first flag below it.
struct Section {
  const char* title;
  const char* first_flag;
};
constexpr Section kSections[] = {
    {"Model", "model"},
    {"Addresses", "host"},
    {"Device and memory", "device"},
    {"Steps and context", "threads"},
    {"Queues: more is refused with 429, RESOURCE_EXHAUSTED over gRPC", "max-queued-requests"},
    {"Life and end", "drain-timeout"},
    {"Access", "api-key-file"},
    {"Limits", "max-body-bytes"},
    {"Log", "log-format"},
};

constexpr char kTail[] = R"(
Over HTTP
  POST /v1/completions, /v1/chat/completions, /tokenize, /detokenize
  GET  / (a console for browsers), /v1/models, /v1/models/{id}, /tokenizer_info,
       /health (is it alive), /health/ready (does it take requests), /metrics (Prometheus),
       /openapi.json, /version
Over gRPC
  nsa.v1.GenerationService, grpc.health.v1.Health, server reflection

Signals
  SIGTERM, SIGINT  new requests are refused, running ones have --drain-timeout to finish; a second
                   signal ends the process at once

Exit status
  0  after a signal, however many requests the deadline cut off
  1  nothing could be served, and stderr says why; or the GPU failed while serving
  128 + signal  after a second signal

Examples
  nsa-server --model=models/nsa-story-27m
  nsa-server --model=/models/m --host=0.0.0.0 --api-key-file=keys --tls-cert=c.pem --tls-key=k.pem
  nsa-server doctor --model=/models/m --device=cuda
  curl localhost:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "Once"}'
)";

// "  --name=VALUE   help", the help in lines of at most kWidth.
void AppendFlag(const FlagHelp& flag, std::string* help) {
  const std::string name = absl::StrCat("--", flag.name, "=", flag.value);
  std::string line = absl::StrFormat("  %-*s", kFlagWidth, name);
  bool is_first = true;
  for (const absl::string_view word : absl::StrSplit(flag.help, ' ')) {
    if (!is_first && line.size() + 1 + word.size() > kWidth) {
      absl::StrAppend(help, line, "\n");
      line.assign(kFlagWidth + 2, ' ');
    }
    absl::StrAppend(&line, " ", word);
    is_first = false;
  }
  absl::StrAppend(help, line, "\n");
}

}  // namespace

std::string ServerHelp() {
  std::string help = kHead;
  for (const FlagHelp& flag : FlagHelps()) {
    const auto* const section =
        std::find_if(std::begin(kSections), std::end(kSections),
                     [&](const Section& candidate) { return flag.name == candidate.first_flag; });
    if (section != std::end(kSections)) absl::StrAppend(&help, "\n", section->title, "\n");
    AppendFlag(flag, &help);
  }
  return help + kTail;
}

}  // namespace nsa
