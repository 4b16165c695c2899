// CHECK: what our own code relies on. On in every build; a failure is our bug, and the process is
// crash-only.
#pragma once

namespace basalt {
[[noreturn]] void check_failed(const char* file, int line, const char* expression);
}

#define BASALT_CHECK(condition)                               \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::basalt::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
