#include "base/random.h"

#include <sys/random.h>

#include <cerrno>

#include "base/check.h"

namespace basalt {

void fill_random(MutableBytes out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = getrandom(out.data() + done, out.size() - done, 0);
    if (got < 0) {
      BASALT_CHECK(errno == EINTR);
      continue;
    }
    done += static_cast<size_t>(got);
  }
}

uint64_t random_u64() {
  uint64_t value = 0;
  fill_random({reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}

std::string random_alphanumeric(size_t count) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  constexpr unsigned kLetters = 62;
  std::string text;
  text.reserve(count);
  while (text.size() < count) {
    uint8_t bytes[64];
    fill_random(bytes);
    for (const uint8_t byte : bytes) {
      // 248 = 4 * 62: larger values would favour the first letters.
      if (byte < 4 * kLetters && text.size() < count) text.push_back(kAlphabet[byte % kLetters]);
    }
  }
  return text;
}

}  // namespace basalt
