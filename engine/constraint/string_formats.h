#pragma once
// JSON Schema's `format` values that an output is held to, as regular expressions.

#include <string_view>

namespace nsa::constraint {

// The expression of a format; empty for a format that is not in the table, which JSON Schema lets
// a reader ignore.
//   date       RFC 3339 full-date, months and leap years exact
//   time       RFC 3339 full-time, no leap seconds, at most 9 digits of a second's fraction
//   date-time  both, joined by 'T'
//   uuid       RFC 4122, either case
//   email      RFC 5321 dot-atom @ hostname
//   hostname   RFC 1123 labels
//   ipv4       dotted quad
std::string_view FormatRegex(std::string_view format);

}  // namespace nsa::constraint
