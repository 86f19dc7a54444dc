#pragma once
// What the server wants to see of a client: an API key, and trust in its certificate.

#include <string>

#include "clients/cli/options.h"

namespace nsa::cli {

struct Access {
  std::string api_key;  // empty: none is sent
  bool uses_tls = false;
  std::string trusted_certificates;  // in PEM; empty: those of the system
};

// Reads the files that the options name. Returns an error message, empty if all is well. The key is
// the first line of its file that is not blank and does not begin with '#'.
std::string ReadAccess(const Options& options, Access* access);

}  // namespace nsa::cli
