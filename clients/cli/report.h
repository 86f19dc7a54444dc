#pragma once
// What a generation cost, in words.

#include <cstdint>
#include <string>

#include <grpcpp/support/status.h>

#include "nsa/v1/generation.pb.h"

namespace nsa::cli {

// "1.5 MiB"
std::string FormatBytes(int64_t num_bytes);

// Two lines: tokens, times and rates; cache bytes read against what full attention would have read.
std::string FormatReport(const v1::Usage& usage);

// "UNAVAILABLE"
std::string StatusName(grpc::StatusCode code);

// "prefill 512 / 8000 tokens"
std::string FormatProgress(const v1::Progress& progress);

}  // namespace nsa::cli
