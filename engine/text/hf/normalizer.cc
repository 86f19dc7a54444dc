#include "engine/text/hf/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "base/status.h"

namespace nsa::hf {
namespace {

constexpr int kMaxDecomposition = 16;  // code points of one; Unicode promises at most 4 for NFD
constexpr std::string_view kSupported = "null, NFC and Sequence of these";

struct Mark {
  utf8proc_int32_t code_point;
  int combining_class;  // 0: a starter
};

std::vector<Mark> Decomposed(std::string_view text) {
  std::vector<Mark> marks;
  std::array<utf8proc_int32_t, kMaxDecomposition> parts{};
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto num_left = static_cast<utf8proc_ssize_t>(text.size());
  while (num_left > 0) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t num_bytes = utf8proc_iterate(bytes, num_left, &code_point);
    NSA_CHECK_GT(num_bytes, 0) << "the text is not valid UTF-8";
    bytes += num_bytes;
    num_left -= num_bytes;
    int last_boundclass = 0;
    const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
        code_point, parts.data(), parts.size(),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &last_boundclass);
    for (utf8proc_ssize_t i = 0; i < num_parts; ++i) {
      marks.push_back({parts[i], utf8proc_get_property(parts[i])->combining_class});
    }
  }
  return marks;
}

// The library's own ordering is quadratic in a run of combining marks, which a user may send.
void OrderMarks(std::vector<Mark>* marks) {
  const auto is_starter = [](const Mark& mark) { return mark.combining_class == 0; };
  auto begin = marks->begin();
  while (begin != marks->end()) {
    begin = std::find_if_not(begin, marks->end(), is_starter);
    const auto end = std::find_if(begin, marks->end(), is_starter);
    std::stable_sort(begin, end, [](const Mark& a, const Mark& b) {
      return a.combining_class < b.combining_class;
    });
    begin = end;
  }
}

std::string ComposedSlowly(std::string_view text) {
  std::vector<Mark> marks = Decomposed(text);
  OrderMarks(&marks);
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(marks.size());
  for (const Mark& mark : marks) code_points.push_back(mark.code_point);
  const utf8proc_ssize_t num_left = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  NSA_CHECK_GE(num_left, 0) << utf8proc_errmsg(num_left);
  std::string composed;
  for (utf8proc_ssize_t i = 0; i < num_left; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes{};
    const utf8proc_ssize_t num_bytes = utf8proc_encode_char(code_points[i], bytes.data());
    composed.append(reinterpret_cast<const char*>(bytes.data()), num_bytes);
  }
  return composed;
}

}  // namespace

std::string ComposedUtf8(std::string_view text) {
  const bool is_ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  return is_ascii ? std::string(text) : ComposedSlowly(text);
}

absl::StatusOr<Normalizer> Normalizer::Parse(const JsonNode& node) {
  Normalizer normalizer;
  if (node.is_absent()) return normalizer;
  const JsonNode type_node = node.Member("type");
  NSA_ASSIGN_OR_RETURN(const std::string type, type_node.String());
  if (type == "NFC") {
    normalizer.composes_ = true;
  } else if (type == "Sequence") {
    NSA_ASSIGN_OR_RETURN(const auto parts, node.Member("normalizers").Elements());
    for (const JsonNode& part : parts) {
      NSA_ASSIGN_OR_RETURN(const Normalizer parsed, Parse(part));
      normalizer.composes_ |= parsed.composes_;
    }
  } else {
    return type_node.Unsupported(kSupported);
  }
  return normalizer;
}

}  // namespace nsa::hf
