// Maintenance: what an operator can have a running engine do besides serving. Any thread.
#pragma once

#include "storage/scrub.h"

namespace basalt::storage {

class Maintenance {
 public:
  virtual ~Maintenance() = default;
  virtual Scrub& scrub() = 0;
};

}  // namespace basalt::storage
