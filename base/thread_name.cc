#include "base/thread_name.h"

#include <pthread.h>

#include "base/check.h"

namespace nsa {

void NameThisThread(const char* name) {
  NSA_CHECK_EQ(pthread_setname_np(pthread_self(), name), 0) << name << " is too long";
}

}  // namespace nsa
