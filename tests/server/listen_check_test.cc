#include "server/listen_check.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace nsa {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(ListenCheckTest, AnyFreePort) {
  EXPECT_TRUE(CheckCanListen("127.0.0.1", 0, "--http-port").ok());
  EXPECT_TRUE(CheckCanListen("localhost", 0, "--http-port").ok());
}

TEST(ListenCheckTest, APortInUseIsNamedUntilItIsFree) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t num_bytes = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(listener, generic, num_bytes), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, generic, &num_bytes), 0);
  const int port = ntohs(address.sin_port);

  const absl::Status status = CheckCanListen("127.0.0.1", port, "--grpc-port");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("--grpc-port is " + std::to_string(port)), HasSubstr("127.0.0.1"),
                    HasSubstr("another process listens there")));
  close(listener);
  EXPECT_TRUE(CheckCanListen("127.0.0.1", port, "--grpc-port").ok());
}

TEST(ListenCheckTest, ABadHostIsNamed) {
  for (const char* host : {"192.0.2.1", "no.such.host.invalid"}) {
    const absl::Status status = CheckCanListen(host, 0, "--http-port");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("--host is '") + host));
  }
}

}  // namespace
}  // namespace nsa
