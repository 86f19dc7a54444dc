#pragma once
// The certificate and key with which both transports speak TLS.

#include <string>

#include "absl/status/statusor.h"

namespace nsa {

// Texts in PEM; both empty: no TLS.
struct TlsFiles {
  std::string certificate;  // the server's own first, then those that vouch for it
  std::string key;          // without a password

  bool empty() const { return certificate.empty(); }
};

// Reads both files. INVALID_ARGUMENT names the file and what is wrong: not PEM, a key with a
// password, a key of another certificate, a certificate that has expired.
absl::StatusOr<TlsFiles> LoadTlsFiles(const std::string& certificate_path,
                                      const std::string& key_path);

}  // namespace nsa
