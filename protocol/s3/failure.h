// Shorthands for operations: leaving a coroutine with an error, and the errors that carry details.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "protocol/s3/error.h"

// The expression is a Result or S3Result that is already there (CO_TRY and CO_CHECK of base/task.h
// await theirs).
#define S3_TRY(name, expr)                                                           \
  auto name##_result_ = (expr);                                                      \
  if (!name##_result_) co_return std::unexpected(std::move(name##_result_).error()); \
  auto& name = *name##_result_

#define S3_CHECK(expr)                                                                     \
  do {                                                                                     \
    auto s3_check_result_ = (expr);                                                        \
    if (!s3_check_result_) co_return std::unexpected(std::move(s3_check_result_).error()); \
  } while (false)

namespace basalt::s3 {

// InvalidArgument with <ArgumentName> and <ArgumentValue>.
inline std::unexpected<S3Error> invalid_argument(std::string_view name, std::string_view value,
                                                 std::string message) {
  S3Error error(S3Code::kInvalidArgument, std::move(message));
  error.details = {{"ArgumentName", std::string(name)}, {"ArgumentValue", std::string(value)}};
  return std::unexpected(std::move(error));
}

// NotImplemented that names the header which asks for too much.
inline std::unexpected<S3Error> header_not_implemented(std::string_view header) {
  S3Error error(S3Code::kNotImplemented);
  error.details = {{"Header", std::string(header)}};
  return std::unexpected(std::move(error));
}

// An error with one further element.
inline std::unexpected<S3Error> s3_fail_with(S3Code code, std::string_view element,
                                             std::string_view value, std::string message = {}) {
  S3Error error(code, std::move(message));
  error.details = {{std::string(element), std::string(value)}};
  return std::unexpected(std::move(error));
}

}  // namespace basalt::s3
