#pragma once
// The prompt of `generate`: a file's text and the words of the command line.

#include <string>
#include <string_view>

#include "clients/cli/options.h"

namespace nsa::cli {

// Fills `prompt`. Returns an error message, empty if all is well; a directory and a file of more
// than 16 MiB are errors.
std::string ReadPrompt(const Options& options, std::string* prompt);

// Protocol Buffers refuse any other text, without saying so clearly.
bool IsValidUtf8(std::string_view text);

}  // namespace nsa::cli
