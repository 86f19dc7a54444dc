#include "server/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_certificate.h"

namespace nsa {
namespace {

using testing::HasSubstr;

std::string ProblemOf(const std::string& certificate, const std::string& key) {
  const auto files = LoadTlsFiles(WriteTestFile("tls_test_cert.pem", certificate),
                                  WriteTestFile("tls_test_key.pem", key));
  return files.ok() ? "" : std::string(files.status().message());
}

TEST(TlsFilesTest, ReadsACertificateWithItsKey) {
  const TlsFiles made = MakeTestCertificate();
  const auto read = LoadTlsFiles(WriteTestFile("tls_good_cert.pem", made.certificate),
                                 WriteTestFile("tls_good_key.pem", made.key));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->certificate, made.certificate);
  EXPECT_EQ(read->key, made.key);
  EXPECT_FALSE(read->empty());
  EXPECT_TRUE(TlsFiles().empty());
}

TEST(TlsFilesTest, RefusesWhatIsNoPair) {
  const TlsFiles one = MakeTestCertificate();
  const TlsFiles other = MakeTestCertificate();
  EXPECT_THAT(ProblemOf("", one.key), HasSubstr("is not a certificate in PEM"));
  EXPECT_THAT(ProblemOf(one.key, one.key), HasSubstr("is not a certificate in PEM"));
  EXPECT_THAT(ProblemOf(one.certificate, "nonsense"), HasSubstr("is not a private key in PEM"));
  EXPECT_THAT(ProblemOf(one.certificate, one.certificate), HasSubstr("is not a private key"));
  EXPECT_THAT(ProblemOf(one.certificate, other.key), HasSubstr("is not the key of"));
  EXPECT_EQ(LoadTlsFiles("/nowhere/c.pem", "/nowhere/k.pem").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(TlsFilesTest, RefusesACertificateThatHasExpired) {
  const TlsFiles expired = MakeTestCertificate(-10);
  EXPECT_THAT(ProblemOf(expired.certificate, expired.key), HasSubstr("has expired"));
}

TEST(TlsFilesTest, RefusesAKeyWithAPassword) {
  EXPECT_THAT(ProblemOf(MakeTestCertificate().certificate, MakeKeyWithPassword()),
              HasSubstr("without password"));
}

}  // namespace
}  // namespace nsa
