#pragma once
// Names of threads, as `top -H`, debuggers and /proc/PID/task/TID/comm show them.

namespace nsa {

// Names the calling thread; at most 15 bytes.
void NameThisThread(const char* name);

}  // namespace nsa
