// nsa-cli: continues texts and chats through a running server.

#include <grpc/support/log.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "clients/cli/access.h"
#include "clients/cli/options.h"
#include "clients/cli/prompt.h"
#include "clients/cli/session.h"

namespace nsa::cli {
namespace {

int Generate(const Options& options, const Access& access) {
  std::string prompt;
  const std::string error = ReadPrompt(options, &prompt);
  if (!error.empty()) {
    std::fprintf(stderr, "nsa-cli: %s\n", error.c_str());
    return 1;
  }
  v1::GenerateRequest request;
  request.set_text(prompt);
  std::string text;
  return Session(options, access).Run(std::move(request), &text) ? 0 : 1;
}

void AddMessage(const std::string& role, const std::string& content, v1::ChatMessages* messages) {
  v1::ChatMessage* message = messages->add_messages();
  message->set_role(role);
  message->set_content(content);
}

// A failed turn is forgotten, and the chat goes on; the exit status tells of the last turn.
int Chat(const Options& options, const Access& access) {
  Session session(options, access);
  v1::ChatMessages messages;
  if (!options.system.empty()) AddMessage("system", options.system, &messages);
  const bool is_interactive = isatty(STDIN_FILENO) == 1;
  bool succeeded = true;
  std::string line;
  while (true) {
    if (is_interactive) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (!IsValidUtf8(line)) {
      std::fputs("nsa-cli: the message is not valid UTF-8\n", stderr);
      continue;
    }
    AddMessage("user", line, &messages);
    v1::GenerateRequest request;
    *request.mutable_chat() = messages;
    std::string answer;
    succeeded = session.Run(std::move(request), &answer);
    if (succeeded) {
      AddMessage("assistant", answer, &messages);
    } else {
      messages.mutable_messages()->RemoveLast();
    }
  }
  return succeeded ? 0 : 1;
}

// gRPC's own log would stand between the lines of the CLI; what matters arrives as a status.
void DropLog(gpr_log_func_args* /*args*/) {}

int Main(const std::vector<std::string>& arguments) {
  gpr_set_log_function(DropLog);
  Options options;
  Access access;
  std::string error = ParseOptions(arguments, &options);
  if (error.empty()) error = ReadAccess(options, &access);
  if (!error.empty()) {
    std::fprintf(stderr, "nsa-cli: %s\n", error.c_str());
    return 1;
  }
  switch (options.command) {
    case Options::Command::kGenerate:
      return Generate(options, access);
    case Options::Command::kChat:
      return Chat(options, access);
    case Options::Command::kHelp:
      break;
  }
  std::fputs(HelpText().c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace nsa::cli

int main(int argc, char** argv) {
  return nsa::cli::Main(std::vector<std::string>(argv + 1, argv + argc));
}
