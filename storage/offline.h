// OfflineDirectory: a data directory that no server has open, as the repair tools see it. Holds the
// directory's lock; writes nothing unless it is told to.
//
// Repair never deletes: what is in the way is moved to DIR/quarantine/STAMP/, under its own path.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/files.h"
#include "storage/files_local.h"
#include "storage/files_posix.h"
#include "storage/findings.h"
#include "storage/index.h"
#include "storage/index_pages.h"
#include "storage/lane.h"
#include "storage/record.h"
#include "storage/segment_format.h"

namespace basalt::storage {

struct OfflineSegment {
  uint32_t number = 0;
  FileKind kind = FileKind::kLog;
  std::string path;  // relative
  uint64_t file_bytes = 0;
  std::array<std::optional<SegmentHeader>, 2> copies;  // valid ones, of this segment

  const SegmentHeader* header() const {
    return copies[0] ? &*copies[0] : copies[1] ? &*copies[1] : nullptr;
  }
};

class OfflineDirectory {
 public:
  // Errors: kNotFound (no directory, no superblock), kBusy (a server has it), kCorrupt (both copies
  // of the superblock, or a newer format).
  static Result<std::unique_ptr<OfflineDirectory>> open(const std::string& path);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  const Superblock& superblock() const { return superblock_; }
  const std::vector<OfflineSegment>& segments() const { return segments_; }
  // The log segments, as a replay wants them.
  std::vector<LocalFiles::LogFile> log_files() const;
  const std::vector<uint32_t>& own_files() const { return own_files_; }
  const std::vector<std::string>& strangers() const { return strangers_; }  // relative paths
  const OfflineSegment* find(FileKind kind, uint32_t number) const;
  bool has_own_file(uint32_t number) const;
  std::string shard_directory(unsigned shard) const;
  std::string shard_file(unsigned shard) const;  // relative: shard/NN/data.mdb

  // What is wrong with a blob's place (file, kind, generation, bounds); nothing: it can be there.
  std::optional<Finding> look(const BlobRef& blob) const;

  // After a header was written.
  Status list_again();

  // --- Writing.
  // DIR/quarantine/STAMP, made at the first call.
  Result<std::string> quarantine();
  const std::string& quarantine_used() const { return quarantine_; }  // "": nothing was moved
  // Moves `relative` there, and returns where it is now.
  Result<std::string> move_to_quarantine(const std::string& relative);
  Status rewrite_superblock();
  // Writes both copies of the header again.
  Status rewrite_header(const OfflineSegment& segment, const SegmentHeader& header);

 private:
  OfflineDirectory() = default;
  Status list();

  std::string path_;
  UniqueFd fd_, lock_;
  Superblock superblock_;
  std::vector<OfflineSegment> segments_;
  std::vector<uint32_t> own_files_;
  std::vector<std::string> strangers_;
  std::string quarantine_;
};

// Replaces the index of a shard by the one in `fresh` (a directory beside it), in one step where
// the file system can exchange names; the old one goes to the quarantine.
Status install_index(OfflineDirectory& directory, unsigned shard, const std::string& fresh);

// Every valid batch of a log segment, whatever lies between, in the order of the file. The
// generation is the header's, or without one that of the first batch found. Returns the number of
// places where bytes that should be a batch are none, as `damaged(offset)` was told.
struct SegmentBatches {
  uint32_t generation = 0;
  uint64_t batches = 0;
  uint64_t first_lsn = 0, last_lsn = 0;
};
Result<SegmentBatches> scan_log_segment(
    const OfflineDirectory& directory, const OfflineSegment& segment,
    const std::function<Status(const BatchHeader&, const RecoveredRecord&)>& visit,
    const std::function<void(uint64_t offset)>& damaged);

// Replays the log into indexes: those of all shards, in order. Afterwards they hold everything that
// could be read. Not yet marked as applied. `trust_checkpoints`: what the log says to be in the
// index is there (false for an index that comes from a snapshot or is made anew).
struct ReplayResult {
  uint64_t records = 0;
  std::string damage;  // empty: every acknowledged record was there
};
Result<ReplayResult> replay_into(OfflineDirectory& directory,
                                 std::vector<std::unique_ptr<Index>>& indexes,
                                 std::span<const LogPosition> applied, bool trust_checkpoints);
// Everything that is in the log is in this index now: the next start replays none of it.
Status mark_applied(Index& index, const Superblock& superblock);

// Fills an index that is empty, in transactions of bounded size.
class IndexFiller {
 public:
  explicit IndexFiller(Index& index) : writer_(index) {}
  Status put(const KeyView& key, Bytes value);
  Status erase(const KeyView& key);
  Status finish(const LogPosition* applied);

 private:
  struct Change {
    OwnedKey key;
    std::vector<uint64_t> value;
    size_t bytes = 0;
    bool erase = false;
  };
  Status add(Change change);
  Status flush(const LogPosition* applied);
  IndexWriter writer_;
  std::vector<Change> changes_;
  size_t bytes_ = 0;
};

// A file of lines in the quarantine, made at the first line: what a repair took out.
class QuarantineList {
 public:
  QuarantineList(OfflineDirectory& directory, std::string name)
      : directory_(directory), name_(std::move(name)) {}
  Status add(const std::string& line);
  Status finish();  // synced
  uint64_t lines() const { return lines_; }

 private:
  OfflineDirectory& directory_;
  const std::string name_;
  UniqueFd fd_;
  uint64_t offset_ = 0;
  uint64_t lines_ = 0;
};
// One line of JSON: table, space, name and the index value (hexadecimal), and why.
std::string record_line(const KeyView& key, Bytes value, std::string_view why);

// Copies the stored bytes of a blob (data and chunk table, as far as they can be read) to the
// quarantine, as blobs/FILE-OFFSET.
Status keep_blob(OfflineDirectory& directory, const BlobRef& blob);

// Puts the superblock of a snapshot (a directory) in the place of a damaged one, which goes to the
// quarantine. The epoch it holds may be old: it is raised to the highest that segments tell of, and
// file numbers go on behind the highest there is.
Status restore_superblock(const std::string& directory, const std::string& snapshot,
                          std::string& quarantine);

Status make_directories(const std::string& path);  // like mkdir -p, synced
Status sync_path(const std::string& path);         // fsync of a file or directory
std::string stamp_now();                           // 20261121T061500Z

}  // namespace basalt::storage
