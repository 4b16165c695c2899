#include "base/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <iterator>
#include <string>

namespace basalt {

namespace {

constexpr size_t kLogBufferBytesMax = 32 * 1024;
std::atomic<LogLevel> current_level{LogLevel::kInfo};

// Lines of this thread that are not written yet; written out when the thread ends.
struct LineBuffer {
  std::string text;
  ~LineBuffer() { write_out(); }
  void write_out() {
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t wrote = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
      if (wrote <= 0) break;  // a log that cannot be written must not stop the server
      done += static_cast<size_t>(wrote);
    }
    text.clear();
  }
};
thread_local LineBuffer line_buffer;

void append_json_text(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte >= 0x7f) {
      // Bytes above 0x7e may be no UTF-8 (object keys are any bytes): written as Latin-1 escapes,
      // the line stays JSON.
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

constexpr std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

}  // namespace

void set_log_level(LogLevel level) { current_level.store(level, std::memory_order_relaxed); }
LogLevel log_level() { return current_level.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  std::string& out = line_buffer.text;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  fmt::format_to(std::back_inserter(out),
                 R"({{"ts":"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z","level":"{}","msg":)",
                 utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                 utc.tm_sec, now.tv_nsec / 1'000'000, level_name(level));
  append_json_text(out, message);
  for (const LogField& field : fields) {
    out.push_back(',');
    append_json_text(out, field.name);
    out.push_back(':');
    switch (field.kind) {
      case LogField::Kind::kText:
        append_json_text(out, field.text);
        break;
      case LogField::Kind::kSigned:
        fmt::format_to(std::back_inserter(out), "{}", field.i);
        break;
      case LogField::Kind::kUnsigned:
        fmt::format_to(std::back_inserter(out), "{}", field.u);
        break;
      case LogField::Kind::kDouble:
        fmt::format_to(std::back_inserter(out), "{:.6g}", field.d);
        break;
      case LogField::Kind::kBool:
        out += field.b ? "true" : "false";
        break;
    }
  }
  out += "}\n";
  if (level >= LogLevel::kWarn || out.size() >= kLogBufferBytesMax) line_buffer.write_out();
}

void flush_log() {
  if (!line_buffer.text.empty()) line_buffer.write_out();
}

}  // namespace basalt
