#include "server/listen_check.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};

// 0, or the errno of the call that failed.
int TryListen(const addrinfo& address) {
  const int listener = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return errno;
  // As the servers do: connections of a process that has ended do not matter, a listener does.
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listens =
      bind(listener, address.ai_addr, address.ai_addrlen) == 0 && listen(listener, 1) == 0;
  const int error = listens ? 0 : errno;
  close(listener);
  return error;
}

}  // namespace

absl::Status CheckCanListen(const std::string& host, int64_t port, const std::string& port_flag) {
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int problem = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (problem != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host is '", host, "': ", gai_strerror(problem)));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  const int error = TryListen(*addresses);
  if (error == 0) return absl::OkStatus();
  if (error == EADDRNOTAVAIL) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host is '", host, "', which is not an address of this machine"));
  }
  const std::string reason =
      error == EADDRINUSE ? "another process listens there" : std::strerror(error);
  return absl::FailedPreconditionError(absl::StrCat(port_flag, " is ", port,
                                                    ", but the server cannot listen on ", host,
                                                    " port ", port, ": ", reason));
}

}  // namespace nsa
