#include "storage/rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "base/check.h"
#include "storage/files_local.h"
#include "storage/generated/record_generated.h"
#include "storage/index_audit.h"
#include "storage/offline.h"
#include "storage/record_codec.h"
#include "storage/snapshots.h"

namespace basalt::storage {

namespace {

namespace fs = std::filesystem;

constexpr size_t kLossesMax = 1000;

Status copy_file(const std::string& from, const std::string& to) {
  UniqueFd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in) return fail_errno(errno, "open " + from);
  UniqueFd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out) return fail_errno(errno, "create " + to);
  std::vector<uint8_t> piece(1u << 20);
  for (uint64_t offset = 0;;) {
    BASALT_TRY(got, read_at(in.get(), piece, offset));
    if (got == 0) break;
    BASALT_CHECK_OK(write_at(out.get(), Bytes(piece).first(got), offset, "write " + to));
    offset += got;
  }
  return sync_file(out.get(), "sync " + to);
}

class Rebuild {
 public:
  Rebuild(const RebuildOptions& options, OfflineDirectory& directory)
      : options_(options),
        directory_(directory),
        shard_count_(directory.superblock().shard_count),
        taken_out_(directory, "records.jsonl"),
        uncertain_(directory, "uncertain.jsonl") {}

  Result<RebuildReport> run() {
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      fresh_.push_back(directory_.shard_directory(shard) + ".new");
      std::error_code ignored;
      fs::remove_all(fresh_.back(), ignored);  // of an attempt that was interrupted
    }
    if (options_.from_segments) {
      BASALT_CHECK_OK(from_segments());
    } else {
      BASALT_CHECK_OK(from_snapshot());
    }
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      say(fmt::format("checking shard {:02}", shard));
      indexes_[shard].reset();
      BASALT_CHECK_OK(drop_dangling(shard));
    }
    BASALT_CHECK_OK(taken_out_.finish());
    BASALT_CHECK_OK(uncertain_.finish());
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      {
        BASALT_TRY(index, open(shard));
        BASALT_CHECK_OK(mark_applied(*index, directory_.superblock()));
      }
      BASALT_CHECK_OK(sync_path(fresh_[shard]));
    }
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      BASALT_CHECK_OK(install_index(directory_, shard, fresh_[shard]));
    }
    report_.dropped = taken_out_.lines();
    report_.uncertain = uncertain_.lines();
    report_.quarantine = directory_.quarantine_used();
    return std::move(report_);
  }

 private:
  void say(const std::string& line) const {
    if (options_.progress) options_.progress(line);
  }
  void lose(std::string what) {
    if (report_.losses.size() < kLossesMax) report_.losses.push_back(std::move(what));
  }
  Result<std::unique_ptr<Index>> open(unsigned shard) {
    return Index::open(
        {.directory = fresh_[shard], .shard = shard, .map_bytes = options_.lmdb_map_bytes});
  }

  // --- From a snapshot

  Result<SnapshotInfo> choose() {
    std::string why;
    for (SnapshotInfo& info : list_snapshots(options_.directory)) {
      if (!options_.snapshot.empty() && info.stamp != options_.snapshot) continue;
      say("verifying snapshot " + info.stamp);
      if (info.applied.size() != shard_count_ || info.files.size() != shard_count_) {
        why += info.stamp + ": it is of another number of shards; ";
        continue;
      }
      if (const auto good = verify_snapshot(info); !good) {
        why += good.error().detail + "; ";
        continue;
      }
      return std::move(info);
    }
    return fail(Code::kNotFound,
                why.empty() ? "there is no snapshot of the indexes in " + options_.directory +
                                  "/snapshot: --from-segments is the last resort"
                            : why + "no good snapshot: --from-segments is the last resort");
  }

  Status from_snapshot() {
    BASALT_TRY(info, choose());
    report_.source = info.stamp;
    std::vector<LogPosition> applied;
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      BASALT_CHECK_OK(make_directories(fresh_[shard]));
      BASALT_CHECK_OK(
          copy_file(info.directory + "/" + info.files[shard].name, fresh_[shard] + "/data.mdb"));
      BASALT_TRY(index, open(shard));
      applied.push_back(index->applied());
      indexes_.push_back(std::move(index));
    }
    say("replaying the log");
    BASALT_TRY(replayed, replay_into(directory_, indexes_, applied, false));
    report_.log_records = replayed.records;
    if (!replayed.damage.empty()) {
      lose("the log since the snapshot is not whole: " + replayed.damage);
    }
    return {};
  }

  // --- From segments

  // Where the log is whole from here to its end: a record above is certain.
  struct Certain {
    uint64_t lsn = 0;
    uint64_t epoch = 0;  // the last one with a segment of the shard's lane
  };

  Status from_segments() {
    report_.source = "segments";
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      BASALT_TRY(index, open(shard));
      indexes_.push_back(std::move(index));
      fillers_.push_back(std::make_unique<IndexFiller>(*indexes_.back()));
    }
    certain_.resize(shard_count_);
    BASALT_CHECK_OK(salvage_control());
    struct Place {
      uint64_t epoch;
      uint32_t lane;
      uint64_t sequence;
      const OfflineSegment* segment;
    };
    std::vector<Place> places;
    for (const OfflineSegment& segment : directory_.segments()) {
      if (segment.kind != FileKind::kLog) continue;
      const SegmentHeader* header = segment.header();
      if (header == nullptr) {
        lose(segment.path +
             ": both copies of its header are damaged; 'basaltd fsck --yes' may mend it");
        continue;
      }
      places.push_back({header->epoch, header->lane, header->sequence, &segment});
    }
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
      return std::tie(a.epoch, a.lane, a.sequence) < std::tie(b.epoch, b.lane, b.sequence);
    });
    uint64_t last_epoch = 0, last_lsn = 0;
    uint32_t last_lane = 0;
    for (const Place& place : places) {
      say("reading " + place.segment->path);
      const uint32_t lanes = place.segment->header()->lane_count;
      // A lane begins: what its shards wrote in earlier epochs went to lanes that ended we know not
      // where.
      if (place.epoch != last_epoch || place.lane != last_lane) {
        last_epoch = place.epoch;
        last_lane = place.lane;
        last_lsn = place.epoch << kLsnEpochShift;
        gap(place.lane, lanes, last_lsn);
        for (unsigned shard = place.lane; shard < shard_count_; shard += std::max(1u, lanes)) {
          certain_[shard].epoch = place.epoch;
        }
      }
      uint64_t batch_lsn = 0;
      const auto visit = [&](const BatchHeader& header, const RecoveredRecord& record) -> Status {
        if (header.first_lsn != batch_lsn) {
          if (header.previous_lsn != last_lsn) gap(place.lane, lanes, header.first_lsn - 1);
          batch_lsn = header.first_lsn;
          last_lsn = header.last_lsn();
        }
        return apply(record);
      };
      const auto damaged = [&](uint64_t offset) {
        lose(fmt::format("{}: a batch at offset {} is damaged", place.segment->path, offset));
      };
      BASALT_TRY(scanned, scan_log_segment(directory_, *place.segment, visit, damaged));
      (void)scanned;
    }
    // A lane without a segment of the last epoch: how the one before ended is not known.
    for (unsigned shard = 0; shard < shard_count_; ++shard) {
      if (certain_[shard].epoch != directory_.superblock().epoch) certain_[shard].lsn = UINT64_MAX;
    }
    for (auto& filler : fillers_) BASALT_CHECK_OK(filler->finish(nullptr));
    fillers_.clear();
    return {};
  }

  // Records of the lane's shards at or below `lsn` may have been changed by what is missing.
  void gap(uint32_t lane, uint32_t lanes, uint64_t lsn) {
    for (unsigned shard = lane; shard < shard_count_; shard += std::max(1u, lanes)) {
      certain_[shard].lsn = std::max(certain_[shard].lsn, lsn);
    }
  }

  Status apply(const RecoveredRecord& record) {
    ++report_.log_records;
    if (record.shard >= shard_count_) {
      lose(fmt::format("log record {} names shard {}", record.lsn, record.shard));
      return {};
    }
    const AlignedBytes bytes(record.mutations);
    const auto batch = verify_batch(bytes.view(), record.body.size());
    if (!batch) {
      lose(fmt::format("log record {}: {}", record.lsn, batch.error().detail));
      return {};
    }
    IndexFiller& filler = *fillers_[record.shard];
    for (const fb::Mutation* mutation : *(*batch)->mutations()) {
      const KeyView key = key_of(*mutation);
      if (is_control(key) && is_outdated(key, record.lsn)) continue;
      if (mutation->action() == fb::Action::Erase) {
        BASALT_CHECK_OK(filler.erase(key));
        continue;
      }
      BlobRef body;
      Bytes inline_body;
      if (mutation->has_body() && record.body.size() > kIndexBodyBytesMax) {
        body = record.body_ref;
      } else if (mutation->has_body()) {
        inline_body = record.body;
        body.kind = static_cast<uint8_t>(BlobKind::kIndex);
        body.length = record.body.size();
      }
      const ValueBuffer value =
          encoder_.encode(key, record.lsn, *mutation->record(), body, inline_body);
      BASALT_CHECK_OK(filler.put(key, value.view()));
    }
    return {};
  }

  static bool is_control(const KeyView& key) {
    return key.table == Table::kBucket || key.table == Table::kIdentity;
  }

  // Buckets and accounts live in shard 0 as rows without bodies, so the log forgets them, and what
  // it still has may be out of date: a key that was disabled must not come back. The newest index
  // or snapshot whose rows of this kind can all be read decides, with the log after it. If there is
  // none, the latest row counts that can be found anywhere.
  Status salvage_control() {
    std::vector<std::string> sources = {directory_.path() + "/" + directory_.shard_file(0)};
    for (const SnapshotInfo& info : list_snapshots(options_.directory)) {
      sources.push_back(info.directory + "/00.mdb");
    }
    for (const std::string& source : sources) {
      auto pages = IndexPages::open(source);
      if (!pages || !(*pages)->select(std::nullopt, [](const PageDamage&) {})) continue;
      std::map<ControlKey, ControlRow> rows;
      bool sound = true;
      const auto visit = [&](const KeyView& key, const RecordView& record, Bytes value) {
        if (!is_control(key)) return;
        ControlRow& row = rows[{key.table, std::string(key.name)}];
        row.seq = record.seq;
        row.bytes = value.size();
        row.value.resize((value.size() + 7) / 8);
        std::memcpy(row.value.data(), value.data(), value.size());
      };
      const auto audit = audit_index(**pages, 0, source, visit, [&](const Finding& finding) {
        if (finding.key) sound &= !is_control(finding.key->view());
      });
      if (!audit) continue;
      for (const auto& hidden : audit->hidden) {
        sound &= hidden.table != "bkt" && hidden.table != "iam" && hidden.table != "main";
      }
      if (sound && audit->applied) {
        control_ = std::move(rows);
        control_lsn_ = audit->applied->lsn;
        break;
      }
      for (auto& [key, row] : rows) {
        ControlRow& known = control_[key];
        if (known.seq < row.seq) known = std::move(row);
      }
    }
    if (control_lsn_ == 0)
      lose("buckets and accounts: no index or snapshot has all of them readable");
    for (const auto& [key, row] : control_) {
      BASALT_CHECK_OK(
          fillers_[0]->put({key.first, kControlSpace, key.second},
                           {reinterpret_cast<const uint8_t*>(row.value.data()), row.bytes}));
    }
    report_.control_records = control_.size();
    return {};
  }
  // Whether a control row of the log is older than what was found.
  bool is_outdated(const KeyView& key, uint64_t lsn) const {
    if (lsn <= control_lsn_) return true;
    const auto found = control_.find({key.table, std::string(key.name)});
    return found != control_.end() && lsn <= found->second.seq;
  }

  // --- Both

  // Records whose bytes are not where they say leave the new index: what a recycled segment holds
  // now is somebody else's.
  Status drop_dangling(unsigned shard) {
    std::vector<OwnedKey> dropped;
    {
      BASALT_TRY(pages, IndexPages::open(fresh_[shard] + "/data.mdb"));
      BASALT_CHECK_OK(pages->select(std::nullopt, [](const PageDamage&) {}));
      Status status;
      const auto visit = [&](const KeyView& key, const RecordView& record, Bytes value) {
        ++report_.records;
        std::string why;
        for_each_file_blob(record, [&](const BlobRef& blob) {
          if (const auto wrong = directory_.look(blob)) why = wrong->file + ": " + wrong->what;
        });
        if (!why.empty()) {
          dropped.push_back({key.table, key.space, std::string(key.name)});
          if (status) status = taken_out_.add(record_line(key, value, why));
        } else if (options_.from_segments && key.space != kControlSpace &&
                   record.seq <= certain_[shard].lsn && status) {
          status = uncertain_.add(record_line(
              key, {}, "a part of the log after it is gone: it may have been deleted or replaced"));
        }
      };
      BASALT_TRY(audit, audit_index(*pages, shard, "", visit, [](const Finding&) {}));
      (void)audit;
      BASALT_CHECK_OK(status);
    }
    if (dropped.empty()) return {};
    report_.records -= dropped.size();
    BASALT_TRY(index, open(shard));
    IndexFiller filler(*index);
    for (const OwnedKey& key : dropped) BASALT_CHECK_OK(filler.erase(key.view()));
    return filler.finish(nullptr);
  }

  const RebuildOptions& options_;
  OfflineDirectory& directory_;
  const unsigned shard_count_;
  RebuildReport report_;
  std::vector<std::string> fresh_;
  std::vector<std::unique_ptr<Index>> indexes_;
  std::vector<std::unique_ptr<IndexFiller>> fillers_;
  std::vector<Certain> certain_;
  using ControlKey = std::pair<Table, std::string>;
  struct ControlRow {
    uint64_t seq = 0;
    size_t bytes = 0;
    std::vector<uint64_t> value;
  };
  std::map<ControlKey, ControlRow> control_;
  uint64_t control_lsn_ = 0;  // control_ is what was true then; 0: it is what could be found
  RecordEncoder encoder_;
  QuarantineList taken_out_, uncertain_;
};

}  // namespace

Result<RebuildReport> rebuild_index(const RebuildOptions& options) {
  BASALT_TRY(directory, OfflineDirectory::open(options.directory));
  Rebuild rebuild(options, *directory);
  return rebuild.run();
}

}  // namespace basalt::storage
