#include "server/exit_timer.h"

#include <cstdlib>
#include <thread>

#include "absl/time/clock.h"
#include "base/log.h"
#include "base/log_writer.h"

namespace nsa {

void ExitAfter(absl::Duration delay, int status) {
  std::thread([delay, status] {
    absl::SleepFor(delay);
    NSA_LOG_WARNING << "the shutdown did not finish within " << absl::FormatDuration(delay)
                    << "; ending the process";
    FlushLog();
    std::_Exit(status);
  }).detach();
}

}  // namespace nsa
