#include "clients/cli/options.h"

#include <charconv>
#include <functional>
#include <utility>

namespace nsa::cli {
namespace {

struct Flag {
  std::string name;
  std::string value;  // what stands for the value in the help; empty: takes none
  std::string help;
  // False: the value is not what the flag takes.
  std::function<bool(const std::string& value, Options* options)> set;
};

template <typename Number>
bool ParseNumber(const std::string& text, Number* number) {
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && stopped == end;
}

// 64 bits, signed or not: -1 is the largest, as over HTTP.
bool ParseSeed(const std::string& text, Options* options) {
  int64_t negative = 0;
  if (ParseNumber(text, &options->seed.emplace())) return true;
  if (!ParseNumber(text, &negative)) return false;
  options->seed = static_cast<uint64_t>(negative);
  return true;
}

auto Text(std::string Options::*field) {
  return [field](const std::string& value, Options* options) {
    options->*field = value;
    return true;
  };
}

template <typename Number>
auto OptionalNumber(std::optional<Number> Options::*field) {
  return [field](const std::string& value, Options* options) {
    return ParseNumber(value, &(options->*field).emplace());
  };
}

std::vector<Flag> Flags() {
  using O = Options;
  return {
      {"--address", "HOST:PORT", "of the server's gRPC port; default 127.0.0.1:9000",
       Text(&O::address)},
      {"--api-key-file", "FILE", "the key for the server is its first line",
       Text(&O::api_key_file)},
      {"--tls", "", "the server speaks TLS; the system's certificates vouch for it",
       [](const std::string&, Options* options) { return options->tls = true; }},
      {"--tls-ca", "FILE", "the same, with certificates in PEM that vouch for it",
       Text(&O::tls_ca)},
      {"--model", "NAME", "default: the served model", Text(&O::model)},
      {"--file", "FILE", "generate: its text stands before the prompt; - is standard input",
       Text(&O::file)},
      {"--system", "TEXT", "chat: the system message", Text(&O::system)},
      {"--max-tokens", "N", "tokens to generate at most; default 256",
       [](const std::string& value, Options* options) {
         return ParseNumber(value, &options->max_tokens);
       }},
      {"--temperature", "T", "0 is greedy; default: the model's", OptionalNumber(&O::temperature)},
      {"--top-p", "P", "default: the model's", OptionalNumber(&O::top_p)},
      {"--top-k", "K", "default: the model's", OptionalNumber(&O::top_k)},
      {"--min-p", "P", "default: the model's", OptionalNumber(&O::min_p)},
      {"--seed", "N", "makes sampling reproducible", ParseSeed},
      {"--stop", "TEXT", "ends before this text; may be given several times",
       [](const std::string& value, Options* options) {
         options->stop.push_back(value);
         return !value.empty();
       }},
      {"--timeout", "SECONDS", "default: none", OptionalNumber(&O::timeout_seconds)},
      {"--ignore-eos", "", "goes on behind an end-of-sequence token",
       [](const std::string&, Options* options) { return options->ignore_eos = true; }},
  };
}

// Takes the flag at `next` and its value, and moves `next` behind them.
std::string ApplyFlag(const std::vector<std::string>& arguments, size_t* next, Options* options) {
  const std::string& argument = arguments[(*next)++];
  const size_t equals = argument.find('=');
  const std::string name = argument.substr(0, equals);
  for (const Flag& flag : Flags()) {
    if (flag.name != name) continue;
    std::string value;
    if (equals != std::string::npos) {
      if (flag.value.empty()) return name + " takes no value";
      value = argument.substr(equals + 1);
    } else if (!flag.value.empty()) {
      if (*next == arguments.size()) return name + " needs a value";
      value = arguments[(*next)++];
    }
    return flag.set(value, options) ? "" : name + " is '" + value + "'; it takes " + flag.value;
  }
  return "unknown flag " + name + "; nsa-cli --help lists all";
}

}  // namespace

std::string ParseOptions(const std::vector<std::string>& arguments, Options* options) {
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") return "";
  }
  if (arguments.empty()) return "a command is missing: generate or chat";
  if (arguments[0] == "generate") {
    options->command = Options::Command::kGenerate;
  } else if (arguments[0] == "chat") {
    options->command = Options::Command::kChat;
  } else {
    return "unknown command '" + arguments[0] + "'; there are generate and chat";
  }
  for (size_t next = 1; next < arguments.size();) {
    if (!arguments[next].starts_with("--")) {
      options->words.push_back(arguments[next++]);
      continue;
    }
    std::string error = ApplyFlag(arguments, &next, options);
    if (!error.empty()) return error;
  }
  const bool is_generate = options->command == Options::Command::kGenerate;
  if (is_generate && options->words.empty() && options->file.empty()) {
    return "generate needs a prompt or --file";
  }
  if (!is_generate && !options->words.empty()) return "chat reads messages from standard input";
  return "";
}

std::string HelpText() {
  std::string text =
      "nsa-cli generate \"prompt\" [flags]   continues a text\n"
      "nsa-cli chat [flags]                answers messages, one per line of standard input\n\n";
  for (const Flag& flag : Flags()) {
    std::string left = "  " + flag.name + (flag.value.empty() ? "" : "=" + flag.value);
    left.resize(26, ' ');
    text += left + flag.help + "\n";
  }
  return text;
}

}  // namespace nsa::cli
