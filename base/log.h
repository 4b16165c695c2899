// Structured log: one JSON object a line on standard error.
//
// log_info("checkpoint done", {{"shard", 3}, {"entries", 1200}}) writes
// {"ts":"2026-11-21T02:21:00.123Z","level":"info","msg":"checkpoint
// done","shard":3,"entries":1200}. Lines are gathered in a buffer per thread and written by
// flush_log() (each loop turn that goes to sleep), at once for warnings and errors, and when the
// buffer is full: a request never waits for the terminal. No secrets: callers never pass header
// values of Authorization, keys or tokens.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace basalt {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

void set_log_level(LogLevel level);
LogLevel log_level();

struct LogField {
  std::string_view name;
  enum class Kind : uint8_t { kText, kSigned, kUnsigned, kDouble, kBool } kind;
  std::string_view text;
  union {
    int64_t i;
    uint64_t u;
    double d;
    bool b;
  };
  LogField(std::string_view field, std::string_view value)
      : name(field), kind(Kind::kText), text(value), i(0) {}
  LogField(std::string_view field, const char* value) : LogField(field, std::string_view(value)) {}
  LogField(std::string_view field, bool value) : name(field), kind(Kind::kBool), b(value) {}
  template <std::signed_integral T>
  LogField(std::string_view field, T value) : name(field), kind(Kind::kSigned), i(value) {}
  template <std::unsigned_integral T>
    requires(!std::same_as<T, bool>)
  LogField(std::string_view field, T value) : name(field), kind(Kind::kUnsigned), u(value) {}
  LogField(std::string_view field, double value) : name(field), kind(Kind::kDouble), d(value) {}
};

void log_line(LogLevel level, std::string_view message,
              std::initializer_list<LogField> fields = {});
void flush_log();

inline void log_debug(std::string_view message, std::initializer_list<LogField> fields = {}) {
  if (log_level() <= LogLevel::kDebug) log_line(LogLevel::kDebug, message, fields);
}
inline void log_info(std::string_view message, std::initializer_list<LogField> fields = {}) {
  if (log_level() <= LogLevel::kInfo) log_line(LogLevel::kInfo, message, fields);
}
inline void log_warn(std::string_view message, std::initializer_list<LogField> fields = {}) {
  log_line(LogLevel::kWarn, message, fields);
}
inline void log_error(std::string_view message, std::initializer_list<LogField> fields = {}) {
  log_line(LogLevel::kError, message, fields);
}

}  // namespace basalt
