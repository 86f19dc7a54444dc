#include "server/version.h"

namespace nsa {

// NSA_VERSION is defined by CMake for this file alone.
std::string ServerVersion() { return NSA_VERSION; }

}  // namespace nsa
