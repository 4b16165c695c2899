// Upload ids: 16 random bytes in the rows of kUpload and kPart, 32 lower-case hex digits on the wire.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "auth/digest.h"

namespace basalt::s3 {

constexpr size_t kUploadIdBytes = 16;

inline std::string format_upload_id(std::string_view raw) { return auth::to_hex(as_bytes(raw)); }

// The raw bytes, or nothing if `text` is no upload id of ours (then there is no such upload).
inline std::optional<std::string> parse_upload_id(std::string_view text) {
  if (text.size() != 2 * kUploadIdBytes) return std::nullopt;
  for (const char c : text) {
    const bool lower_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (!lower_hex) return std::nullopt;
  }
  return auth::from_hex(text);
}

}  // namespace basalt::s3
