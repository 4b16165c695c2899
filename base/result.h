// Result and Error: how every room below the S3 words says that something went wrong.
//
// No exceptions of ours. A function that can fail returns Result<T>; exceptions of a library are
// caught at its edge. The S3 layer has its own error type (protocol/s3/error.h); this one carries
// no S3 words.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace basalt {

enum class Code : uint8_t {
  kNotFound,            // the thing named is not there
  kPreconditionFailed,  // it is there (or not), but not as the caller required
  kSealed,              // the key space (bucket incarnation) is being removed and takes no new keys
  kNotEmpty,            // a key space to be sealed still holds keys
  kCorrupt,             // stored bytes fail their checksum or their structure
  kNoSpace,             // the disk is at its low-water mark, or full
  kReadOnly,            // writes stopped after an I/O error; reads go on
  kBusy,                // a bounded queue or pool is full: try again later
  kIo,                  // the kernel reported an I/O error
  kCancelled,           // the peer went away, or the server stops
  kTimeout,             // a deadline passed
  kInvalid,             // malformed input
  kTooLarge,            // a named limit was exceeded
};

std::string_view code_name(Code code);

struct Error {
  Code code;
  std::string detail;  // for the log and the operator; never sent to a client as is
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> fail(Code code, std::string detail = {}) {
  return std::unexpected(Error{code, std::move(detail)});
}
// `what: strerror(errno_value)`, with ENOSPC/EDQUOT as kNoSpace and the rest as kIo.
std::unexpected<Error> fail_errno(int errno_value, std::string_view what);

}  // namespace basalt

// Leaves the function with the error, or goes on. `expr` is a Result or Status.
#define BASALT_CHECK_OK(expr)                                                           \
  do {                                                                                  \
    auto check_ok_result_ = (expr);                                                     \
    if (!check_ok_result_) return std::unexpected(std::move(check_ok_result_).error()); \
  } while (false)

#define BASALT_TRY(name, expr)                                                    \
  auto name##_result_ = (expr);                                                   \
  if (!name##_result_) return std::unexpected(std::move(name##_result_).error()); \
  auto& name = *name##_result_
