#pragma once
// Ids of requests and responses, and the trace that a request belongs to.

#include <string>
#include <string_view>

namespace nsa {

// True for 1 to 128 characters of [A-Za-z0-9._-].
bool IsAcceptableRequestId(std::string_view id);

// `prefix` and 24 random hexadecimal digits.
std::string NewId(std::string_view prefix);

// The trace id of a W3C traceparent header (Trace Context, section 3.2), 32 hexadecimal digits;
// empty if the header is malformed, in which case it is to be ignored. Of versions above 00 what
// follows the four known fields is not looked at.
std::string TraceIdOf(std::string_view traceparent);

}  // namespace nsa
