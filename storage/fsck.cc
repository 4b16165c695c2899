#include "storage/fsck.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <unordered_set>

#include "base/check.h"
#include "storage/blob_verify.h"
#include "storage/files_local.h"
#include "storage/generated/record_generated.h"
#include "storage/index_audit.h"
#include "storage/offline.h"
#include "storage/record_codec.h"
#include "storage/replay.h"
#include "storage/superblock.h"

namespace basalt::storage {

namespace {

// Blobs gathered before they are read in the order of the disk.
constexpr size_t kBatchBlobs = 262'144;

class Fsck {
 public:
  Fsck(const FsckOptions& options, OfflineDirectory& directory, FsckReport early)
      : options_(options),
        directory_(directory),
        verifier_(directory.fd(), {}),
        report_(std::move(early)),
        shards_(directory.superblock().shard_count) {}

  Result<FsckReport> run() {
    say("superblock and segments");
    BASALT_CHECK_OK(check_superblock());
    BASALT_CHECK_OK(check_segments());
    for (unsigned shard = 0; shard < shards_.size(); ++shard) {
      say(fmt::format("index of shard {:02}", shard));
      BASALT_CHECK_OK(check_shard(shard));
    }
    say("log");
    BASALT_CHECK_OK(check_log());
    list_orphans();
    if (options_.repair) BASALT_CHECK_OK(repair());
    return std::move(report_);
  }

 private:
  struct Shard {
    bool opened = false;  // the file could be read at all
    bool broken = false;  // it must be made anew
    LogPosition applied;
    std::set<OwnedKey, bool (*)(const OwnedKey&, const OwnedKey&)> bad{
        [](const OwnedKey& a, const OwnedKey& b) {
          return std::tie(a.table, a.space, a.name) < std::tie(b.table, b.space, b.name);
        }};  // records that cannot be kept
  };
  struct Item {
    BlobRef blob;
    OwnedKey key;
  };

  void say(const std::string& line) const {
    if (options_.progress) options_.progress(line);
  }
  void find(Finding finding) {
    if (finding.kind == Finding::Kind::kOrphan) {
      ++report_.orphan_count;
    } else {
      ++report_.finding_count;
    }
    if (report_.findings.size() < kFsckFindingsMax) report_.findings.push_back(std::move(finding));
  }

  Status check_superblock() {
    BASALT_TRY(copies, check_superblock_copies(directory_.fd()));
    for (size_t i = 0; i < 2; ++i) {
      if (copies[i].empty()) continue;
      superblock_damaged_ = true;
      find({Finding::Kind::kSuperblock,
            "superblock",
            i * kBlockBytes,
            fmt::format("copy {} {}", i, copies[i]),
            {},
            {}});
    }
    return {};
  }

  Status check_segments() {
    for (const OfflineSegment& segment : directory_.segments()) {
      const uint64_t wanted = segment.header() != nullptr ? segment.header()->size_bytes : 0;
      for (uint64_t copy = 0; copy < 2; ++copy) {
        if (segment.copies[copy]) continue;
        if (segment.header() == nullptr && copy == 1) continue;
        if (segment.header() == nullptr && is_empty(segment)) {
          find({Finding::Kind::kOrphan, segment.path, 0, "a segment that was never used", {}, {}});
          continue;
        }
        if (headers_damaged_.empty() || headers_damaged_.back() != &segment) {
          headers_damaged_.push_back(&segment);
        }
        find({Finding::Kind::kSegment,
              segment.path,
              copy * kBlockBytes,
              segment.header() == nullptr ? "both copies of the header are damaged"
                                          : fmt::format("copy {} of the header is damaged", copy),
              {},
              {}});
      }
      if (segment.file_bytes < wanted) {
        find({Finding::Kind::kSegment,
              segment.path,
              segment.file_bytes,
              fmt::format("the file has {} bytes, its header says {}", segment.file_bytes, wanted),
              {},
              {}});
      }
    }
    return {};
  }

  bool is_empty(const OfflineSegment& segment) const {
    UniqueFd fd(::openat(directory_.fd(), segment.path.c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<uint8_t> block(kBlockBytes);
    const auto got = fd ? read_at(fd.get(), block, kSegmentDataOffset) : Result<size_t>(size_t{0});
    return !got || *got < kBlockBytes ||
           std::all_of(block.begin(), block.end(), [](uint8_t byte) { return byte == 0; });
  }

  Status check_shard(unsigned number) {
    Shard& shard = shards_[number];
    const std::string file = directory_.shard_file(number);
    auto pages = IndexPages::open(directory_.path() + "/" + file);
    const auto damaged = [&](const PageDamage& one) {
      shard.broken = true;
      find({Finding::Kind::kIndex, file, one.page * 4096, one.what, number, {}});
    };
    Status selected;
    if (pages) selected = (*pages)->select(std::nullopt, damaged);
    if (!pages || !selected) {
      shard.broken = true;
      const std::string why = pages ? selected.error().detail : pages.error().detail;
      // A directory that was formatted and never served has no indexes yet.
      const bool fresh = !pages && pages.error().code == Code::kNotFound &&
                         directory_.segments().empty() && directory_.own_files().empty();
      if (fresh) {
        shard.broken = false;
      } else {
        find({Finding::Kind::kIndex, file, 0, why, number, {}});
      }
      return {};
    }
    shard.opened = true;
    const auto visit = [&](const KeyView& key, const RecordView& record, Bytes) {
      ++report_.records;
      for_each_file_blob(record, [&](const BlobRef& blob) { check_blob(number, key, blob); });
    };
    const auto report = [&](Finding finding) {
      shard.broken = true;
      if (finding.key) shard.bad.insert(*finding.key);
      find(std::move(finding));
    };
    BASALT_TRY(audit, audit_index(**pages, number, file, visit, report));
    if (audit.applied) shard.applied = *audit.applied;
    return read_blobs(number);
  }

  void check_blob(unsigned shard, const KeyView& key, const BlobRef& blob) {
    ++report_.blobs;
    if (static_cast<BlobKind>(blob.kind) == BlobKind::kFile) named_.insert(blob.file);
    OwnedKey owned{key.table, key.space, std::string(key.name)};
    if (auto wrong = directory_.look(blob)) {
      wrong->shard = shard;
      wrong->key = owned;
      find(std::move(*wrong));
      condemn(shard, std::move(owned));
      return;
    }
    if (!options_.deep) return;
    items_.push_back({blob, std::move(owned)});
    if (items_.size() >= kBatchBlobs) (void)read_blobs(shard);
  }

  void condemn(unsigned shard, OwnedKey key) {
    shards_[shard].bad.insert(std::move(key));
    shards_[shard].broken = true;
  }

  Status read_blobs(unsigned shard) {
    std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return std::tie(a.blob.file, a.blob.offset) < std::tie(b.blob.file, b.blob.offset);
    });
    for (size_t i = 0; i < items_.size(); ++i) {
      const uint64_t until = i + 1 < items_.size() && items_[i + 1].blob.file == items_[i].blob.file
                                 ? items_[i].blob.offset + (512u << 10)
                                 : 0;
      BASALT_TRY(damage, verifier_.verify(items_[i].blob, until));
      if (!damage) continue;
      find({damage->kind, damage->file, damage->offset, damage->what, shard, items_[i].key});
      condemn(shard, items_[i].key);
    }
    items_.clear();
    report_.bytes = verifier_.bytes_read();
    return {};
  }

  // What a start would read, without applying it.
  Status check_log() {
    std::vector<LogPosition> applied;
    for (const Shard& shard : shards_) applied.push_back(shard.applied);
    const auto visit = [&](const RecoveredRecord& record) -> Status {
      ++report_.log_records;
      const AlignedBytes bytes(record.mutations);
      const auto batch = verify_batch(bytes.view(), record.body.size());
      if (!batch) {
        log_damaged_ = true;
        find({Finding::Kind::kLog,
              "log",
              0,
              fmt::format("log record {}: {}", record.lsn, batch.error().detail),
              record.shard,
              {}});
        return {};
      }
      name_files(**batch);
      return {};
    };
    const auto replayed = replay_log_files({system_disk(), directory_.fd()}, directory_.log_files(),
                                           applied, {}, visit);
    if (!replayed) {
      if (replayed.error().code != Code::kCorrupt) return std::unexpected(replayed.error());
      log_damaged_ = true;
      find({Finding::Kind::kLog, "log", 0, replayed.error().detail, {}, {}});
    }
    return {};
  }

  void name_files(const fb::MutationBatch& batch) {
    for (const fb::Mutation* mutation : *batch.mutations()) {
      if (mutation->record() == nullptr) continue;
      for (size_t i = 0; i < blob_count(*mutation->record()); ++i) {
        const BlobRef blob = blob_at(*mutation->record(), i);
        if (static_cast<BlobKind>(blob.kind) == BlobKind::kFile) named_.insert(blob.file);
      }
    }
  }

  void list_orphans() {
    for (const uint32_t number : directory_.own_files()) {
      if (named_.contains(number)) continue;
      find({Finding::Kind::kOrphan,
            LocalFiles::path_of(FileKind::kOwn, number),
            0,
            "no record names this file; the next start removes it",
            {},
            {}});
    }
    for (const std::string& path : directory_.strangers()) {
      find({Finding::Kind::kOrphan, path, 0, "not a file of ours", {}, {}});
    }
  }

  // --- Repair

  Status repair() {
    if (superblock_damaged_) {
      BASALT_CHECK_OK(directory_.rewrite_superblock());
      report_.repairs.push_back("both copies of the superblock were written again");
    }
    BASALT_CHECK_OK(repair_headers());
    const bool any = std::any_of(shards_.begin(), shards_.end(),
                                 [](const Shard& shard) { return shard.broken; });
    if (any || log_damaged_) BASALT_CHECK_OK(repair_indexes());
    if (const std::string& used = directory_.quarantine_used(); !used.empty())
      report_.quarantine = used;
    return {};
  }

  Status repair_headers() {
    for (const OfflineSegment* segment : headers_damaged_) {
      if (segment->header() != nullptr) {
        BASALT_CHECK_OK(directory_.rewrite_header(*segment, *segment->header()));
        report_.repairs.push_back(segment->path + ": the header was written again from its copy");
        continue;
      }
      // Both are gone. What lies in it tells what they said.
      const auto header = header_from_content(*segment);
      if (!header) {
        BASALT_TRY(where, directory_.move_to_quarantine(segment->path));
        report_.repairs.push_back(segment->path + ": nothing in it can be read; moved to " + where);
        continue;
      }
      BASALT_CHECK_OK(directory_.rewrite_header(*segment, *header));
      report_.repairs.push_back(segment->path + ": a new header was made from what lies in it");
    }
    return headers_damaged_.empty() ? Status{} : directory_.list_again();
  }

  std::optional<SegmentHeader> header_from_content(const OfflineSegment& segment) {
    SegmentHeader header;
    header.uuid = directory_.superblock().uuid;
    header.number = segment.number;
    header.kind = static_cast<uint8_t>(segment.kind);
    header.lane_count = 1;
    header.size_bytes = segment.file_bytes / kBlockBytes * kBlockBytes;
    if (header.size_bytes < kSegmentDataOffset + kBlockBytes ||
        header.size_bytes > kSegmentBytesMax) {
      return std::nullopt;
    }
    if (segment.kind == FileKind::kBulk) {
      header.generation = generation_of(segment);
      if (header.generation == 0) return std::nullopt;
      return header;
    }
    std::optional<BatchHeader> first;
    const auto scanned = scan_log_segment(
        directory_, segment,
        [&](const BatchHeader& batch, const RecoveredRecord&) -> Status {
          if (!first) first = batch;
          return {};
        },
        [](uint64_t) {});
    if (!scanned || !first) return std::nullopt;
    header.generation = first->generation;
    header.epoch = first->epoch;
    header.lane = first->lane;
    // Its place in the lane's chain: behind the segment whose records are the last before its own.
    uint64_t before_lsn = 0;
    std::set<uint64_t> taken;
    for (const OfflineSegment& other : directory_.segments()) {
      if (other.kind != FileKind::kLog || other.header() == nullptr) continue;
      if (other.header()->epoch != header.epoch) continue;
      header.lane_count = std::max(header.lane_count, other.header()->lane_count);
      if (other.header()->lane != header.lane) continue;
      taken.insert(other.header()->sequence);
      UniqueFd fd(::openat(directory_.fd(), other.path.c_str(), O_RDONLY | O_CLOEXEC));
      std::vector<uint8_t> block(kBlockBytes);
      const auto got =
          fd ? read_at(fd.get(), block, kSegmentDataOffset) : Result<size_t>(size_t{0});
      if (!got || *got != kBlockBytes) continue;
      const auto batch = parse_batch_header(block, other.header()->generation);
      if (batch && batch->first_lsn < first->first_lsn && batch->first_lsn >= before_lsn) {
        before_lsn = batch->first_lsn;
        header.sequence = other.header()->sequence + 1;
      }
    }
    if (header.sequence == 0)
      header.sequence = taken.empty() || *taken.begin() < 2 ? 1 : *taken.begin() - 1;
    header.lane_count = std::max(header.lane_count, header.lane + 1);
    if (taken.contains(header.sequence)) return std::nullopt;
    return header;
  }

  uint32_t generation_of(const OfflineSegment& segment) {
    // The records that name it agree, or the data would fail its checksums.
    uint32_t generation = 0;
    for (unsigned shard = 0; shard < shards_.size() && generation == 0; ++shard) {
      auto pages = IndexPages::open(directory_.path() + "/" + directory_.shard_file(shard));
      if (!pages || !(*pages)->select(std::nullopt, [](const PageDamage&) {})) continue;
      (void)audit_index(
          **pages, shard, "",
          [&](const KeyView&, const RecordView& record, Bytes) {
            for_each_file_blob(record, [&](const BlobRef& blob) {
              if (blob.file == segment.number) generation = blob.generation;
            });
          },
          [](const Finding&) {});
    }
    return generation;
  }

  // Makes the broken indexes anew from what can be read of them, then replays the log into all:
  // afterwards the log holds nothing that the indexes lack, so that damage in it is past.
  Status repair_indexes() {
    QuarantineList taken_out(directory_, "records.jsonl");
    std::vector<std::unique_ptr<Index>> indexes;
    std::vector<LogPosition> applied;
    std::vector<std::string> fresh(shards_.size());
    for (unsigned number = 0; number < shards_.size(); ++number) {
      Shard& shard = shards_[number];
      std::string place = directory_.shard_directory(number);
      if (shard.broken) {
        place += ".new";
        std::error_code ignored;
        std::filesystem::remove_all(place, ignored);  // of a repair that was interrupted
        fresh[number] = place;
      }
      BASALT_TRY(
          index,
          Index::open({.directory = place, .shard = number, .map_bytes = options_.lmdb_map_bytes}));
      if (shard.broken) BASALT_CHECK_OK(refill(number, *index, taken_out));
      applied.push_back(shard.applied);
      indexes.push_back(std::move(index));
    }
    BASALT_TRY(replayed, replay_into(directory_, indexes, applied, true));
    if (!replayed.damage.empty()) {
      report_.repairs.push_back("the log was replayed as far as it can be read; lost: " +
                                replayed.damage);
    }
    for (unsigned number = 0; number < shards_.size(); ++number) {
      BASALT_CHECK_OK(mark_applied(*indexes[number], directory_.superblock()));
      indexes[number].reset();
      if (fresh[number].empty()) continue;
      BASALT_CHECK_OK(sync_path(fresh[number]));
      BASALT_CHECK_OK(install_index(directory_, number, fresh[number]));
      report_.repairs.push_back(fmt::format(
          "shard {:02}: the index was made anew; the old one is in the quarantine", number));
    }
    BASALT_CHECK_OK(taken_out.finish());
    if (taken_out.lines() != 0) {
      report_.repairs.push_back(fmt::format(
          "{} records that cannot be kept are listed in records.jsonl in the quarantine",
          taken_out.lines()));
    }
    return {};
  }

  Status refill(unsigned number, Index& index, QuarantineList& taken_out) {
    Shard& shard = shards_[number];
    if (!shard.opened) return {};
    IndexFiller filler(index);
    BASALT_TRY(pages, IndexPages::open(directory_.path() + "/" + directory_.shard_file(number)));
    BASALT_CHECK_OK(pages->select(std::nullopt, [](const PageDamage&) {}));
    Status status;
    const auto visit = [&](const KeyView& key, const RecordView& record, Bytes value) {
      if (!status) return;
      if (!shard.bad.contains({key.table, key.space, std::string(key.name)})) {
        status = filler.put(key, value);
        return;
      }
      status = taken_out.add(record_line(key, value, "its bytes are damaged or missing"));
      for_each_file_blob(record, [&](const BlobRef& blob) {
        if (status) status = keep_blob(directory_, blob);
      });
    };
    const auto report = [&](Finding finding) {
      if (finding.key && status) {
        status = taken_out.add(record_line(finding.key->view(), {}, finding.what));
      }
    };
    BASALT_TRY(audit, audit_index(*pages, number, "", visit, report));
    (void)audit;
    BASALT_CHECK_OK(status);
    return filler.finish(nullptr);
  }

  const FsckOptions& options_;
  OfflineDirectory& directory_;
  BlobVerifier verifier_;
  FsckReport report_;
  std::vector<Shard> shards_;
  std::vector<Item> items_;
  std::unordered_set<uint32_t> named_;  // own files that a record names
  std::vector<const OfflineSegment*> headers_damaged_;
  bool superblock_damaged_ = false;
  bool log_damaged_ = false;
};

// The superblock alone knows the hash that spreads keys over shards: without it there is nothing to
// go by, but each snapshot of the indexes keeps a copy.
Result<std::unique_ptr<OfflineDirectory>> open_directory(const FsckOptions& options,
                                                         FsckReport& report) {
  auto directory = OfflineDirectory::open(options.directory);
  if (directory || directory.error().code != Code::kCorrupt || !options.repair) return directory;
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::set<std::string> stamps;
  for (const auto& entry : fs::directory_iterator(options.directory + "/snapshot", ignored)) {
    stamps.insert(entry.path().string());
  }
  for (auto at = stamps.rbegin(); at != stamps.rend(); ++at) {
    UniqueFd fd(::open(at->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd || !read_superblock(fd.get())) continue;
    report.findings.push_back(
        {Finding::Kind::kSuperblock, "superblock", 0, directory.error().detail, {}, {}});
    ++report.finding_count;
    BASALT_CHECK_OK(restore_superblock(options.directory, *at, report.quarantine));
    report.repairs.push_back("the superblock was taken from the snapshot " + *at +
                             "; the damaged one is in the quarantine");
    return OfflineDirectory::open(options.directory);
  }
  return directory;
}

}  // namespace

Result<FsckReport> fsck(const FsckOptions& options) {
  FsckReport early;
  BASALT_TRY(directory, open_directory(options, early));
  Fsck check(options, *directory, std::move(early));
  return check.run();
}

}  // namespace basalt::storage
