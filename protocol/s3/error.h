// S3Error: an error in S3's words. The table is errors.def; the XML is written in one place
// (dispatch.cc).
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace basalt::s3 {

enum class S3Code : uint8_t {
#define S3_ERROR(code, status, message) k##code,
#include "protocol/s3/errors.def"
#undef S3_ERROR
};

std::string_view s3_code_name(S3Code code);
int s3_code_status(S3Code code);
std::string_view s3_code_message(S3Code code);

struct S3Error {
  S3Code code;
  std::string message;  // empty: the table's
  std::vector<std::pair<std::string, std::string>>
      details;         // further elements of <Error>, e.g. {"ArgumentName", "max-keys"}
  bool close = false;  // the connection's state is unknown: close after the answer
  std::string log;     // for the log line only

  S3Error(S3Code c, std::string m = {}) : code(c), message(std::move(m)) {}
  // An inner error that the operation did not expect: kBusy -> SlowDown, kNoSpace ->
  // InsufficientStorage, kReadOnly -> ServiceUnavailable, kSealed -> NoSuchBucket,
  // kCancelled/kTimeout -> RequestTimeout (the peer is gone anyway), the rest InternalError;
  // `detail` goes to the log. Implicit, so that CO_TRY works on inner results.
  S3Error(Error&& inner);
};

template <class T = void>
using S3Result = std::expected<T, S3Error>;

inline std::unexpected<S3Error> s3_fail(S3Code code, std::string message = {}) {
  return std::unexpected(S3Error(code, std::move(message)));
}

}  // namespace basalt::s3
