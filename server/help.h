#pragma once
// What --help prints.

#include <string>

namespace nsa {

std::string ServerHelp();

}  // namespace nsa
