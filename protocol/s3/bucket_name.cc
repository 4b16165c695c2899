#include "protocol/s3/bucket_name.h"

#include <cstddef>

namespace basalt::s3 {
namespace {

bool lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool like_ipv4(std::string_view name) {
  int dots = 0;
  size_t run = 0;
  for (const char c : name) {
    if (c == '.') {
      if (run == 0 || run > 3) return false;
      ++dots;
      run = 0;
    } else if (c >= '0' && c <= '9') {
      ++run;
    } else {
      return false;
    }
  }
  return dots == 3 && run > 0 && run <= 3;
}

constexpr std::string_view kReservedPrefixes[] = {"xn--", "sthree-", "amzn-s3-demo-"};
constexpr std::string_view kReservedSuffixes[] = {"-s3alias", "--ol-s3", ".mrap", "--x-s3",
                                                  "--table-s3"};

}  // namespace

bool valid_new_bucket_name(std::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  if (!lower_or_digit(name.front()) || !lower_or_digit(name.back())) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (!lower_or_digit(c) && c != '-' && c != '.') return false;
    if (c == '.' && name[i + 1] == '.') return false;  // the last character is no dot
  }
  if (like_ipv4(name)) return false;
  for (const std::string_view prefix : kReservedPrefixes) {
    if (name.starts_with(prefix)) return false;
  }
  for (const std::string_view suffix : kReservedSuffixes) {
    if (name.ends_with(suffix)) return false;
  }
  return true;
}

bool addressable_bucket_name(std::string_view name) {
  if (name.size() < 3 || name.size() > 255) return false;
  for (const char c : name) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (!lower_or_digit(c) && !upper && c != '-' && c != '.' && c != '_') return false;
  }
  return true;
}

}  // namespace basalt::s3
