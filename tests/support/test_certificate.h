#pragma once
// A certificate for 127.0.0.1 and localhost that vouches for itself, made anew for each test.

#include <string>

#include "server/tls_files.h"

namespace nsa {

// Valid from a minute ago for `valid_seconds`; negative: it has expired.
TlsFiles MakeTestCertificate(long valid_seconds = 3600);

// A private key in PEM that only a password opens.
std::string MakeKeyWithPassword();

// Writes a text into a file of the test's folder and returns its path.
std::string WriteTestFile(const std::string& name, const std::string& text);

}  // namespace nsa
