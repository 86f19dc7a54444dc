#pragma once
// The version of this server, from the build.

#include <string>

namespace nsa {

// "0.1.0"
std::string ServerVersion();

}  // namespace nsa
