#include "clients/cli/access.h"

#include <fstream>
#include <sstream>

namespace nsa::cli {
namespace {

std::string Trimmed(const std::string& text) {
  constexpr const char* kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Fills `text`; false if the file cannot be read.
bool Read(const std::string& path, std::string* text) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream read;
  read << file.rdbuf();
  *text = read.str();
  return file.good() && !text->empty();
}

std::string FirstKey(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line = Trimmed(line);
    if (!line.empty() && line.front() != '#') return line;
  }
  return "";
}

}  // namespace

std::string ReadAccess(const Options& options, Access* access) {
  std::string text;
  if (!options.api_key_file.empty()) {
    if (!Read(options.api_key_file, &text)) return options.api_key_file + " cannot be read";
    access->api_key = FirstKey(text);
    if (access->api_key.empty()) return options.api_key_file + ": there is no key in it";
  }
  access->uses_tls = options.tls || !options.tls_ca.empty();
  if (!options.tls_ca.empty() && !Read(options.tls_ca, &access->trusted_certificates)) {
    return options.tls_ca + " cannot be read";
  }
  return "";
}

}  // namespace nsa::cli
