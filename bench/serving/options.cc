#include "bench/serving/options.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status.h"

namespace nsa::bench {
namespace {

constexpr int64_t kMaxKeyFileBytes = 4096;

using Setter = std::function<absl::Status(const std::string& value, BenchOptions* options)>;

struct Flag {
  std::string name;
  std::string value;  // what stands for it in the help; empty: a switch
  std::string help;
  Setter set;
};

Setter Switch(bool BenchOptions::*field) {
  return [field](const std::string& /*value*/, BenchOptions* options) {
    options->*field = true;
    return absl::OkStatus();
  };
}

Setter Text(std::string BenchOptions::*field) {
  return [field](const std::string& value, BenchOptions* options) {
    options->*field = value;
    return absl::OkStatus();
  };
}

// A number of [low, high], handed to `take`.
Setter Number(double low, double high, std::function<void(double, BenchOptions*)> take) {
  return [=](const std::string& value, BenchOptions* options) -> absl::Status {
    double number = 0;
    if (!absl::SimpleAtod(value, &number) || !(number >= low) || !(number <= high)) {
      return absl::InvalidArgumentError(absl::StrCat("allowed: ", low, " to ", high));
    }
    take(number, options);
    return absl::OkStatus();
  };
}

Setter Lengths(LengthDistribution WorkloadOptions::*field) {
  return [field](const std::string& value, BenchOptions* options) -> absl::Status {
    NSA_ASSIGN_OR_RETURN(options->workload.*field, LengthDistribution::Parse(value));
    return absl::OkStatus();
  };
}

absl::Status SetEndpoint(const std::string& value, BenchOptions* options) {
  options->chat = value == "chat";
  if (options->chat || value == "completions") return absl::OkStatus();
  return absl::InvalidArgumentError("allowed: completions, chat");
}

absl::Status SetApiKey(const std::string& value, BenchOptions* options) {
  NSA_ASSIGN_OR_RETURN(const std::string text, ReadFile(value, kMaxKeyFileBytes));
  options->api_key = std::string(absl::StripAsciiWhitespace(text));
  return absl::OkStatus();
}

std::vector<Flag> Flags() {
  using O = BenchOptions;
  return {
      {"endpoint", "NAME", "completions or chat; default completions", &SetEndpoint},
      {"words", "", "prompts are text of about so many tokens, not token ids", Switch(&O::words)},
      {"model", "NAME", "`model` of the requests; default: not said", Text(&O::model)},
      {"api-key-file", "FILE", "a file with a key", &SetApiKey},
      {"ignore-eos", "", "answers of full length: a field that nsa-server and vLLM know",
       Switch(&O::ignore_eos)},
      {"rate", "R", "open loop: Poisson arrivals, R a second on average",
       Number(1e-3, 1e5, [](double n, O* o) { o->workload.rate = n; })},
      {"concurrency", "N", "closed loop: N clients, each with one call after another",
       Number(1, 1e4, [](double n, O* o) { o->concurrency = static_cast<int64_t>(n); })},
      {"calls", "N", "calls in all",
       Number(1, 1e9, [](double n, O* o) { o->num_calls = static_cast<int64_t>(n); })},
      {"duration", "SECONDS", "calls begin for so long",
       Number(0.1, 1e6, [](double n, O* o) { o->duration = absl::Seconds(n); })},
      {"prompt-tokens", "LENGTH", "128, 16..512 (uniform), ~128*0.8 (log-normal); default 128",
       Lengths(&WorkloadOptions::prompt_tokens)},
      {"output-tokens", "LENGTH", "max_tokens, likewise; default 128",
       Lengths(&WorkloadOptions::output_tokens)},
      {"cancel", "SHARE", "share of the calls whose client leaves; default 0",
       Number(0, 1, [](double n, O* o) { o->workload.cancelled_share = n; })},
      {"seed", "N", "of arrivals, lengths, prompts and cancels; default 1",
       Number(0, 1e9, [](double n, O* o) { o->workload.seed = static_cast<uint64_t>(n); })},
      {"timeout", "SECONDS", "of a call; default 600",
       Number(0.1, 1e6, [](double n, O* o) { o->timeout = absl::Seconds(n); })},
      {"ttft-bound", "MS", "goodput: the first token within MS of the arrival",
       Number(0.001, 1e7, [](double n, O* o) { o->ttft_bound_ms = n; })},
      {"itl-bound", "MS", "goodput: the mean gap between a call's tokens at most MS",
       Number(0.001, 1e7, [](double n, O* o) { o->itl_bound_ms = n; })},
      {"commit-times", "", "the server is overhead_server: measure the latency that is added",
       Switch(&O::commit_times)},
      {"json", "", "print JSON", Switch(&O::json)},
      {"help", "", "print this", Switch(&O::help)},
  };
}

absl::Status SetTarget(const std::string& target, BenchOptions* options) {
  const size_t scheme_end = target.find("://");
  const size_t colon = target.rfind(':');
  if (scheme_end != std::string::npos && colon > scheme_end + 3 && colon + 1 < target.size()) {
    const std::string scheme = target.substr(0, scheme_end);
    options->grpc = scheme == "grpc";
    options->host = target.substr(scheme_end + 3, colon - scheme_end - 3);
    options->port = target.substr(colon + 1);
    if (options->grpc || scheme == "http") return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", target, "' is no server; allowed: http://HOST:PORT, grpc://HOST:PORT"));
}

absl::Status CheckTogether(const BenchOptions& options) {
  if (options.help) return absl::OkStatus();
  if (options.host.empty()) return absl::InvalidArgumentError("which server? --help says more");
  if ((options.workload.rate > 0) == (options.concurrency > 0)) {
    return absl::InvalidArgumentError("one of --rate and --concurrency is needed");
  }
  if (options.num_calls == 0 && options.duration == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError("--calls or --duration is needed");
  }
  if (options.grpc && (options.chat || options.commit_times)) {
    return absl::InvalidArgumentError("--endpoint=chat and --commit-times are for HTTP");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BenchOptions> ParseOptions(const std::vector<std::string>& arguments) {
  BenchOptions options;
  const std::vector<Flag> flags = Flags();
  for (const std::string& argument : arguments) {
    if (!argument.starts_with("--")) {
      NSA_RETURN_IF_ERROR(SetTarget(argument, &options));
      continue;
    }
    const size_t equals = std::min(argument.find('='), argument.size());
    const auto flag = std::find_if(flags.begin(), flags.end(), [&](const Flag& f) {
      return argument.substr(0, equals) == "--" + f.name;
    });
    if (flag == flags.end() || (equals < argument.size()) == flag->value.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown argument '", argument, "'; --help lists all"));
    }
    const std::string value = equals < argument.size() ? argument.substr(equals + 1) : "";
    if (absl::Status status = flag->set(value, &options); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(argument, ": ", status.message()));
    }
  }
  NSA_RETURN_IF_ERROR(CheckTogether(options));
  return options;
}

std::string OptionsHelp() {
  std::string help =
      "serving_bench http://HOST:PORT|grpc://HOST:PORT [flags]: load for a server of the OpenAI "
      "API, or\n"
      "of nsa-server's gRPC, and what it makes of it. Latency counts from the intended "
      "arrival.\n\n";
  for (const Flag& flag : Flags()) {
    const std::string name =
        flag.value.empty() ? flag.name : absl::StrCat(flag.name, "=", flag.value);
    absl::StrAppendFormat(&help, "  --%-24s %s\n", name, flag.help);
  }
  return help;
}

}  // namespace nsa::bench
