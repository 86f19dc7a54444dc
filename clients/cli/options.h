#pragma once
// What the command line of nsa-cli asks for.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nsa::cli {

struct Options {
  enum class Command : uint8_t { kGenerate, kChat, kHelp };
  Command command = Command::kHelp;
  std::string address = "127.0.0.1:9000";
  std::string api_key_file;        // empty: no key is sent
  bool tls = false;                // also with tls_ca
  std::string tls_ca;              // file; empty: the system's certificates
  std::string model;               // empty: the served one
  std::vector<std::string> words;  // generate: the prompt
  std::string file;                // generate: its text comes before the prompt
  std::string system;              // chat: the system message
  int64_t max_tokens = 256;
  std::optional<double> temperature, top_p, min_p, timeout_seconds;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

// Fills `options` from the arguments, without the program's name. Returns an error message, empty
// if all is well. Ranges are the server's business; only what is no number is refused here.
std::string ParseOptions(const std::vector<std::string>& arguments, Options* options);

std::string HelpText();

}  // namespace nsa::cli
