#pragma once
// The last resort of a shutdown that hangs.

#include "absl/time/time.h"

namespace nsa {

// Ends the process with `status` and a line in the log once `delay` has passed, whatever its other
// threads do. It cannot be called off: the process is expected to end before.
void ExitAfter(absl::Duration delay, int status);

}  // namespace nsa
