#pragma once
// Parts of a JSON text as they were written, for readers to whom the order of members matters.

#include <optional>
#include <string_view>

namespace nsa {

// The text of the object's member `key`. `object` is a JSON object in which no key occurs twice, as
// ParseJsonObject accepts it.
std::optional<std::string_view> RawMember(std::string_view object, std::string_view key);

}  // namespace nsa
