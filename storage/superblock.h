// The superblock file: two 4 KiB copies, each with a checksum and a counter; the newer valid one
// counts. A change writes the older copy, syncs, then the other, syncs: at any crash one copy is
// whole.
#pragma once

#include <array>
#include <string>

#include "storage/disk.h"
#include "storage/files.h"

namespace basalt::storage {

// Both use `directory_fd`/superblock. Errors of read: kNotFound (no such file), kCorrupt (no valid
// copy, or one of a newer program: the text says which).
Result<Superblock> read_superblock(int directory_fd, Disk& disk = system_disk());
// For a fresh directory: written to a temporary name, synced, renamed, directory synced.
Status create_superblock(int directory_fd, const Superblock& superblock,
                         Disk& disk = system_disk());
Status update_superblock(int directory_fd, const Superblock& superblock,
                         Disk& disk = system_disk());
// What is wrong with either copy, an empty text if nothing (for scrub and fsck; read-only).
Result<std::array<std::string, 2>> check_superblock_copies(int directory_fd,
                                                           Disk& disk = system_disk());

}  // namespace basalt::storage
