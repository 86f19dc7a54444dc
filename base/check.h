#pragma once
// NSA_CHECK: a programmer error ends the process with the place, the condition and a message.
// Bad input is never a CHECK; it is an absl::Status (base/status.h).

#include <sstream>

namespace nsa {

// Collects the message of a failed check, logs it and aborts when it goes out of scope.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;

  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

}  // namespace nsa

#define NSA_CHECK(condition)  \
  if (condition) [[likely]] { \
  } else /* NOLINT */         \
    ::nsa::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define NSA_CHECK_OP(a, op, b) NSA_CHECK((a)op(b)) << "(" << (a) << " against " << (b) << ") "
#define NSA_CHECK_EQ(a, b) NSA_CHECK_OP(a, ==, b)
#define NSA_CHECK_LE(a, b) NSA_CHECK_OP(a, <=, b)
#define NSA_CHECK_LT(a, b) NSA_CHECK_OP(a, <, b)
#define NSA_CHECK_GE(a, b) NSA_CHECK_OP(a, >=, b)
#define NSA_CHECK_GT(a, b) NSA_CHECK_OP(a, >, b)
