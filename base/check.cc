#include "base/check.h"

#include <cstdlib>

#include "base/log.h"

namespace basalt {

void check_failed(const char* file, int line, const char* expression) {
  log_error("check failed", {{"file", file}, {"line", line}, {"expression", expression}});
  flush_log();
  std::abort();
}

}  // namespace basalt
