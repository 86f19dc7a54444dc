#include "base/log.h"

#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace nsa {

LogLine::~LogLine() {
  constexpr char kLetters[] = {'I', 'W', 'E'};
  std::string line(1, kLetters[static_cast<int>(level_)]);
  line += absl::FormatTime(" %H:%M:%E3S ", absl::Now(), absl::LocalTimeZone());
  line += text_.str();
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace nsa
