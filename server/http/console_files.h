#pragma once
// The files of the console page as strings of the program. CMake makes the table of
// server/http/console/ and of the chapter that the needle demo reads.

#include <span>
#include <string_view>

namespace nsa {

struct ConsoleFile {
  std::string_view name;  // "style.css"
  std::string_view etag;  // with its quotes; changes when the text does
  std::string_view text;
};

std::span<const ConsoleFile> ConsoleFiles();

}  // namespace nsa
