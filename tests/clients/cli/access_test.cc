#include "clients/cli/access.h"

#include <gtest/gtest.h>

#include <fstream>

namespace nsa::cli {
namespace {

std::string FileWith(const std::string& name, const std::string& text) {
  std::string path = testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(AccessTest, NothingIsNeeded) {
  Access access;
  EXPECT_EQ(ReadAccess({}, &access), "");
  EXPECT_EQ(access.api_key, "");
  EXPECT_FALSE(access.uses_tls);
}

TEST(AccessTest, TheKeyIsTheFirstLineThatIsOne) {
  Access access;
  EXPECT_EQ(ReadAccess({.api_key_file = FileWith("cli_key", "# mine\n\n  some-key \r\nother\n")},
                       &access),
            "");
  EXPECT_EQ(access.api_key, "some-key");
  const std::string empty = FileWith("cli_no_key", "# none\n");
  EXPECT_EQ(ReadAccess({.api_key_file = empty}, &access), empty + ": there is no key in it");
  EXPECT_EQ(ReadAccess({.api_key_file = "/nowhere/k"}, &access), "/nowhere/k cannot be read");
}

TEST(AccessTest, TlsWithTheSystemsOrOwnCertificates) {
  Access access;
  EXPECT_EQ(ReadAccess({.tls = true}, &access), "");
  EXPECT_TRUE(access.uses_tls);
  EXPECT_EQ(access.trusted_certificates, "");
  EXPECT_EQ(ReadAccess({.tls_ca = FileWith("cli_ca", "PEM")}, &access), "");
  EXPECT_TRUE(access.uses_tls);
  EXPECT_EQ(access.trusted_certificates, "PEM");
  EXPECT_EQ(ReadAccess({.tls_ca = "/nowhere/c"}, &access), "/nowhere/c cannot be read");
}

}  // namespace
}  // namespace nsa::cli
