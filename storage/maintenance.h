// Maintenance: what an operator can have a running engine do besides serving. Any thread.
#pragma once

#include "storage/backup.h"
#include "storage/scrub.h"
#include "storage/snapshots.h"

namespace basalt::storage {

class Maintenance {
 public:
  virtual ~Maintenance() = default;
  virtual Scrub& scrub() = 0;
  virtual Snapshots& snapshots() = 0;
  virtual Backup& backup() = 0;
};

}  // namespace basalt::storage
