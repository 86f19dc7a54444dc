#include "engine/constraint/string_formats.h"

namespace nsa::constraint {
namespace {

#define NSA_DATE                                                        \
  "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"        \
  "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))" \
  "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
#define NSA_TIME                                                 \
  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?" \
  "(?:Z|[+\\-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define NSA_LABEL "[A-Za-z0-9](?:[A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?"
#define NSA_HOSTNAME NSA_LABEL "(?:\\." NSA_LABEL ")*"
#define NSA_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]+"
#define NSA_OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

struct Format {
  std::string_view name;
  std::string_view regex;
};

constexpr Format kFormats[] = {
    {"date", "^" NSA_DATE "$"},
    {"time", "^" NSA_TIME "$"},
    {"date-time", "^" NSA_DATE "T" NSA_TIME "$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"email", "^" NSA_ATOM "(?:\\." NSA_ATOM ")*@" NSA_HOSTNAME "$"},
    {"hostname", "^" NSA_HOSTNAME "$"},
    {"ipv4", "^" NSA_OCTET "(?:\\." NSA_OCTET "){3}$"},
};

}  // namespace

std::string_view FormatRegex(std::string_view format) {
  for (const Format& entry : kFormats) {
    if (entry.name == format) return entry.regex;
  }
  return {};
}

}  // namespace nsa::constraint
