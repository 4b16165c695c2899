#include "protocol/s3/error.h"

#include <array>

namespace basalt::s3 {
namespace {

struct Row {
  std::string_view name;
  int status;
  std::string_view message;
};

constexpr Row kRows[] = {
#define S3_ERROR(code, status, message) {#code, status, message},
#include "protocol/s3/errors.def"
#undef S3_ERROR
};

const Row& row(S3Code code) { return kRows[static_cast<size_t>(code)]; }

S3Code code_of(Code inner) {
  switch (inner) {
    case Code::kBusy:
      return S3Code::kSlowDown;
    case Code::kNoSpace:
      return S3Code::kInsufficientStorage;
    case Code::kReadOnly:
      return S3Code::kServiceUnavailable;
    case Code::kSealed:
      return S3Code::kNoSuchBucket;
    case Code::kCancelled:
    case Code::kTimeout:
      return S3Code::kRequestTimeout;
    case Code::kNotFound:
    case Code::kPreconditionFailed:
    case Code::kNotEmpty:
    case Code::kCorrupt:
    case Code::kIo:
    case Code::kInvalid:
    case Code::kTooLarge:
      return S3Code::kInternalError;
  }
  return S3Code::kInternalError;
}

}  // namespace

std::string_view s3_code_name(S3Code code) { return row(code).name; }
int s3_code_status(S3Code code) { return row(code).status; }
std::string_view s3_code_message(S3Code code) { return row(code).message; }

S3Error::S3Error(Error&& inner) : code(code_of(inner.code)) {
  log = std::string(code_name(inner.code));
  if (!inner.detail.empty()) {
    log += ": ";
    log += inner.detail;
  }
}

}  // namespace basalt::s3
