#include "server/tls_files.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"

namespace nsa {
namespace {

constexpr int64_t kMaxPemBytes = int64_t{1} << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

Owned<BIO> Reader(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Instead of asking at the terminal.
int NoPassword(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) { return -1; }

}  // namespace

absl::StatusOr<TlsFiles> LoadTlsFiles(const std::string& certificate_path,
                                      const std::string& key_path) {
  TlsFiles files;
  NSA_ASSIGN_OR_RETURN(files.certificate, ReadFile(certificate_path, kMaxPemBytes));
  NSA_ASSIGN_OR_RETURN(files.key, ReadFile(key_path, kMaxPemBytes));
  const Owned<X509> certificate(
      PEM_read_bio_X509(Reader(files.certificate).get(), nullptr, &NoPassword, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(certificate_path + ": is not a certificate in PEM");
  }
  const Owned<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Reader(files.key).get(), nullptr, &NoPassword, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(key_path + ": is not a private key in PEM without password");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(key_path, ": is not the key of ", certificate_path));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return absl::InvalidArgumentError(certificate_path + ": the certificate has expired");
  }
  return files;
}

}  // namespace nsa
