#include "protocol/s3/http_date.h"

#include <array>
#include <chrono>

namespace basalt::s3 {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kDays = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
constexpr std::array<std::string_view, 7> kLongDays = {
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"};

// Takes tokens off the front; after the first mismatch `good` stays false.
struct Scanner {
  std::string_view rest;
  bool good = true;

  void literal(std::string_view text) {
    if (!good || !rest.starts_with(text)) {
      good = false;
      return;
    }
    rest.remove_prefix(text.size());
  }
  int digits(size_t count) {
    if (!good || rest.size() < count) {
      good = false;
      return 0;
    }
    int value = 0;
    for (size_t i = 0; i < count; ++i) {
      if (rest[i] < '0' || rest[i] > '9') {
        good = false;
        return 0;
      }
      value = value * 10 + (rest[i] - '0');
    }
    rest.remove_prefix(count);
    return value;
  }
  template <size_t N>
  int one_of(const std::array<std::string_view, N>& names) {
    if (good) {
      for (size_t i = 0; i < N; ++i) {
        if (rest.starts_with(names[i])) {
          rest.remove_prefix(names[i].size());
          return static_cast<int>(i);
        }
      }
    }
    good = false;
    return 0;
  }
};

struct Parts {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
};

void clock_time(Scanner& scanner, Parts& parts) {
  parts.hour = scanner.digits(2);
  scanner.literal(":");
  parts.minute = scanner.digits(2);
  scanner.literal(":");
  parts.second = scanner.digits(2);
}

std::optional<int64_t> seconds_of(const Parts& parts) {
  using namespace std::chrono;
  const year_month_day date{year{parts.year}, month{static_cast<unsigned>(parts.month + 1)},
                            day{static_cast<unsigned>(parts.day)}};
  // 60 is a leap second.
  if (!date.ok() || parts.hour > 23 || parts.minute > 59 || parts.second > 60) return std::nullopt;
  const int64_t days = sys_days{date}.time_since_epoch().count();
  return days * 86'400 + parts.hour * 3'600 + parts.minute * 60 + parts.second;
}

}  // namespace

std::optional<int64_t> parse_http_date(std::string_view text) {
  const size_t comma = text.find(',');
  Scanner scanner{text};
  Parts parts;
  if (comma == 3) {
    scanner.one_of(kDays);
    scanner.literal(", ");
    parts.day = scanner.digits(2);
    scanner.literal(" ");
    parts.month = scanner.one_of(kMonths);
    scanner.literal(" ");
    parts.year = scanner.digits(4);
    scanner.literal(" ");
    clock_time(scanner, parts);
    scanner.literal(" GMT");
  } else if (comma != std::string_view::npos) {
    scanner.one_of(kLongDays);
    scanner.literal(", ");
    parts.day = scanner.digits(2);
    scanner.literal("-");
    parts.month = scanner.one_of(kMonths);
    scanner.literal("-");
    const int year = scanner.digits(2);
    parts.year = year < 70 ? 2000 + year : 1900 + year;
    scanner.literal(" ");
    clock_time(scanner, parts);
    scanner.literal(" GMT");
  } else {
    scanner.one_of(kDays);
    scanner.literal(" ");
    parts.month = scanner.one_of(kMonths);
    scanner.literal(" ");
    if (scanner.rest.starts_with(' ')) {
      scanner.literal(" ");
      parts.day = scanner.digits(1);
    } else {
      parts.day = scanner.digits(2);
    }
    scanner.literal(" ");
    clock_time(scanner, parts);
    scanner.literal(" ");
    parts.year = scanner.digits(4);
  }
  if (!scanner.good || !scanner.rest.empty()) return std::nullopt;
  return seconds_of(parts);
}

}  // namespace basalt::s3
