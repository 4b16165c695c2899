#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace basalt {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kNotFound:
      return "not_found";
    case Code::kPreconditionFailed:
      return "precondition_failed";
    case Code::kSealed:
      return "sealed";
    case Code::kNotEmpty:
      return "not_empty";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kNoSpace:
      return "no_space";
    case Code::kReadOnly:
      return "read_only";
    case Code::kBusy:
      return "busy";
    case Code::kIo:
      return "io";
    case Code::kCancelled:
      return "cancelled";
    case Code::kTimeout:
      return "timeout";
    case Code::kInvalid:
      return "invalid";
    case Code::kTooLarge:
      return "too_large";
  }
  return "unknown";
}

std::unexpected<Error> fail_errno(int errno_value, std::string_view what) {
  const bool no_space = errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG;
  std::string detail(what);
  detail += ": ";
  char text[128];
  detail += strerror_r(errno_value, text, sizeof text);  // GNU form: thread-safe
  return fail(no_space ? Code::kNoSpace : Code::kIo, std::move(detail));
}

}  // namespace basalt
