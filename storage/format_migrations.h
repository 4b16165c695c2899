// Format versions of a data directory: which are read, and how an older one becomes the newest.
//
// A newer program's directory is refused when its superblock is read. An older one is brought up
// step by step at open, before anything else is touched; each step leaves a directory of its
// version + 1 that can be opened again after a crash at any point (it must be idempotent: the
// superblock is raised only when it has returned). A version from which no step leads is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "storage/files.h"
#include "storage/replay.h"

namespace basalt::storage {

struct FormatMigration {
  uint32_t from;     // to from + 1
  const char* what;  // for the log
  std::function<Status(const DiskPlace& place, Superblock& superblock)> run;
};

// Of this program, in order of `from`. Version 1 is the first: there is none yet.
std::span<const FormatMigration> format_migrations();

// Brings `superblock` and its directory to version `newest` by the steps of `table`; `save` writes
// the superblock after each. kCorrupt with a line for the operator if there is no way.
Status migrate_format(const DiskPlace& place, Superblock& superblock, uint32_t newest,
                      std::span<const FormatMigration> table,
                      const std::function<Status(const Superblock&)>& save);

}  // namespace basalt::storage
