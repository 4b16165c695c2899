// Recovery: reads the log segments again after a crash (or a stop; there is no difference).
//
// The segments of one (epoch, lane) form one chain: in order of their sequence, each batch names
// the last LSN before it. Where the chain breaks there are two cases. Either nothing behind the
// break was acknowledged: a torn tail, dropped. Or a whole batch further on says that a missing LSN
// was durable when it was sent: acknowledged data is damaged, and that is never passed over in
// silence (docs/on-disk-format.md, "Recovery").
#include "storage/replay.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "base/log.h"
#include "storage/files_local.h"
#include "storage/lane.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

// Read in windows of this size; holds the largest batch.
constexpr size_t kWindowBytes = 8u << 20;
static_assert(kWindowBytes >= kBatchBytesMax);
// How far behind a break a whole batch is looked for. Whatever was acknowledged behind a damaged
// batch begins within one batch of it, so this finds acknowledged data behind eight damaged batches
// of full size in a row, and the look costs some milliseconds where reading a 256 MiB segment to
// its end cost seconds of every start after a crash.
constexpr uint64_t kLookAheadBytes = 8 * kBatchBytesMax;

// One segment file, read through a window that moves forward.
class SegmentReader {
 public:
  explicit SegmentReader(std::vector<uint8_t>& memory) : memory_(memory) {}

  Status open(const DiskPlace& place, uint32_t number) {
    std::string path = LocalFiles::path_of(FileKind::kLog, number);
    BASALT_TRY(fd, open_at(place.disk, place.directory_fd, path, O_RDONLY));
    fd_ = std::move(fd);
    fd_.disk().advise(fd_.get(), POSIX_FADV_SEQUENTIAL);
    window_start_ = window_bytes_ = 0;
    return {};
  }

  // The bytes at [offset, offset + length), fewer at the end of the file. Valid until the next
  // call.
  Result<Bytes> at(uint64_t offset, size_t length) {
    if (offset < window_start_ || offset + length > window_start_ + window_bytes_) {
      memory_.resize(kWindowBytes);
      window_bytes_ = 0;
      BASALT_TRY(got, read_at(fd_, memory_, offset));
      window_start_ = offset;
      window_bytes_ = got;
    }
    size_t begin = offset - window_start_;
    size_t end = std::min<size_t>(begin + length, window_bytes_);
    return Bytes(memory_.data() + begin, end - begin);
  }

  // A few bytes without filling the window; zeros behind the end of the file.
  Status peek(uint64_t offset, MutableBytes out) const {
    BASALT_TRY(got, read_at(fd_, out, offset));
    std::fill(out.begin() + static_cast<ptrdiff_t>(got), out.end(), 0);
    return {};
  }

  // The next offset from `offset` on where the file has data: unwritten extents read as zeros, and
  // take no time.
  uint64_t skip_hole(uint64_t offset) const {
    const int64_t data = fd_.disk().seek(fd_.get(), offset, SEEK_DATA);
    if (data < 0) return data == -ENXIO ? UINT64_MAX : offset;
    return std::max<uint64_t>(offset, static_cast<uint64_t>(data) / kBlockBytes * kBlockBytes);
  }

 private:
  std::vector<uint8_t>& memory_;
  UniqueFd fd_;
  uint64_t window_start_ = 0;
  size_t window_bytes_ = 0;
};

struct Segment {
  LocalFiles::LogFile file;
  std::optional<BatchHeader> first;  // of the batch right behind the segment header, if it is one
};

// Where a whole batch is.
struct Place {
  size_t segment = 0;
  uint64_t offset = 0;
  BatchHeader header;
};

class ChainReplay {
 public:
  ChainReplay(const DiskPlace& place, std::vector<Segment> segments,
              std::span<const LogPosition> applied, const ReplayOptions& options,
              const std::function<Status(const RecoveredRecord&)>& visit,
              std::vector<uint8_t>& memory)
      : place_(place),
        segments_(std::move(segments)),
        applied_(applied),
        trust_checkpoints_(options.trust_checkpoints),
        served_(options.make_durable),
        visit_(visit),
        reader_(memory) {
    std::sort(segments_.begin(), segments_.end(), [](const Segment& a, const Segment& b) {
      return a.file.header.sequence < b.file.header.sequence;
    });
    epoch_ = segments_.front().file.header.epoch;
    lane_ = segments_.front().file.header.lane;
  }

  // Visits; the first damage found is kept in damage().
  Status run() {
    uint32_t lane_count = segments_.front().file.header.lane_count;
    uint64_t lowest = UINT64_MAX;
    uint64_t highest = 0;
    LogPosition lowest_position;
    for (size_t shard = lane_; shard < applied_.size(); shard += lane_count) {
      if (applied_[shard].lsn < lowest) {
        lowest = applied_[shard].lsn;
        lowest_position = applied_[shard];
      }
      highest = std::max(highest, applied_[shard].lsn);
    }
    // No shard wrote to this lane, or all that did are in a later epoch.
    if (lowest == UINT64_MAX || lowest >> kLsnEpochShift > epoch_) return {};
    BASALT_CHECK_OK(read_firsts());

    // What is known to be in the index, committed: everything up to a checkpoint that some batch
    // tells of, and everything up to the smallest position of the lane's shards (an idle shard's
    // may be old).
    lowest_ = lowest;
    uint64_t indexed = lowest;
    for (const Segment& segment : segments_) {
      if (segment.first && trust_checkpoints_)
        indexed = std::max(indexed, segment.first->checkpointed_lsn);
    }
    // A checkpoint is told of only when every shard of the lane has committed it. An index behind
    // it went back in time: an LMDB meta page that lost its newest commit to damage, or a copy that
    // was put in its place.
    if (trust_checkpoints_ && indexed > lowest && lowest >> kLsnEpochShift == epoch_) {
      damage_ = Error{
          Code::kCorrupt,
          fmt::format(
              "the index of a shard holds the log up to LSN {} only, but LSN {} was checkpointed: "
              "it is an older state (restore it with rebuild-index)",
              lowest, indexed)};
    }
    size_t start = 0;
    last_lsn_ = epoch_ << kLsnEpochShift;
    for (size_t i = 0; i < segments_.size(); ++i) {
      const auto& first = segments_[i].first;
      if (first && first->previous_lsn <= indexed) {
        start = i;
        last_lsn_ = first->previous_lsn;
      }
    }
    // Segments that were recycled are missing in front; all their records were in the index then,
    // so the shard that owned the last of them has a position at or behind it.
    recycled_up_to_ = std::max(indexed, highest);
    Place place{start, kSegmentDataOffset, {}};
    // What lies before the smallest position is in every index: after a clean stop that is nearly a
    // whole segment, which took a second to read. The position's offset counts only if the segment
    // has not been recycled since: then its first batch came before the position.
    const auto& first = segments_[start].first;
    if (lowest_position.epoch == epoch_ && lowest_position.file == segments_[start].file.number &&
        first && first->previous_lsn < lowest && lowest_position.offset > kSegmentDataOffset &&
        lowest_position.offset % kBlockBytes == 0) {
      place.offset = lowest_position.offset;
      last_lsn_ = lowest;
    }
    return read_from(place);
  }

  const std::optional<Error>& damage() const { return damage_; }
  uint64_t records() const { return records_; }

  // See ReplayOptions::make_durable.
  Status make_durable() {
    for (const Doubtful& batch : doubtful_) {
      const uint32_t number = segments_[batch.segment].file.number;
      const std::string path = LocalFiles::path_of(FileKind::kLog, number);
      BASALT_CHECK_OK(reader_.open(place_, number));
      BASALT_TRY(bytes, reader_.at(batch.offset, batch.bytes));
      BASALT_TRY(fd, open_at(place_.disk, place_.directory_fd, path, O_RDWR));
      BASALT_CHECK_OK(write_at(fd, bytes, batch.offset, "write again to " + path));
      BASALT_CHECK_OK(sync_file(fd, "sync " + path));
    }
    return {};
  }

 private:
  Status read_firsts() {
    for (Segment& segment : segments_) {
      if (served_) {
        const std::string path = LocalFiles::path_of(FileKind::kLog, segment.file.number);
        BASALT_TRY(fd, open_at(place_.disk, place_.directory_fd, path, O_RDWR));
        wait_for_earlier_writes(fd);
      }
      BASALT_CHECK_OK(reader_.open(place_, segment.file.number));
      std::array<uint8_t, sizeof(BatchHeader)> block{};
      BASALT_CHECK_OK(reader_.peek(kSegmentDataOffset, block));
      segment.first = ours(parse_batch_header(block, segment.file.header.generation));
    }
    return {};
  }

  std::optional<BatchHeader> ours(std::optional<BatchHeader> header) const {
    if (header && (header->epoch != epoch_ || header->lane != lane_)) return std::nullopt;
    return header;
  }

  Status read_from(Place place) {
    for (;;) {
      BASALT_CHECK_OK(read_segment(place));
      // `place` is where no whole batch follows the last one. The next segment's first batch goes
      // on, if the lane moved there.
      size_t next = place.segment + 1;
      if (next < segments_.size() && follows_at_start(next, segments_[next].first)) {
        place = {next, kSegmentDataOffset, {}};
        continue;
      }
      BASALT_TRY(later, find_later(place));
      if (!later) return {};
      if (later->header.previous_lsn <= lowest_) {
        // All that is missing was applied, by every shard of the lane: nothing is lost.
        log_warn("a log segment is damaged where the index has everything already",
                 {{"segment", segments_[place.segment].file.number}, {"offset", place.offset}});
      } else {
        note_damage(place, *later);
      }
      last_lsn_ = later->header.previous_lsn;
      place = *later;
    }
  }

  // Segments between are missing only where they were recycled.
  bool follows_at_start(size_t i, const std::optional<BatchHeader>& first) const {
    if (!first) return false;
    if (first->previous_lsn == last_lsn_) return true;
    uint64_t expected = i == 0 ? 1 : segments_[i - 1].file.header.sequence + 1;
    bool gap = segments_[i].file.header.sequence > expected;
    return gap && first->previous_lsn > last_lsn_ && first->previous_lsn <= recycled_up_to_;
  }

  // Visits batches from `place` on while each follows the one before; leaves `place` behind the
  // last.
  Status read_segment(Place& place) {
    const Segment& segment = segments_[place.segment];
    BASALT_CHECK_OK(reader_.open(place_, segment.file.number));
    for (;;) {
      BASALT_TRY(block, reader_.at(place.offset, sizeof(BatchHeader)));
      auto header = ours(parse_batch_header(block, segment.file.header.generation));
      if (!header || header->first_lsn <= last_lsn_) return {};
      bool follows = header->previous_lsn == last_lsn_ || (place.offset == kSegmentDataOffset &&
                                                           follows_at_start(place.segment, header));
      if (!follows) return {};
      BASALT_TRY(batch, reader_.at(place.offset, header->bytes));
      const uint64_t visited = records_;
      BASALT_TRY(whole,
                 visit_batch(batch, *header, segment.file.number, place.offset,
                             [this](const RecoveredRecord& record) -> Status {
                               if (record.shard >= applied_.size()) {
                                 return fail(
                                     Code::kCorrupt,
                                     fmt::format("log record {} is of shard {}, which is not there",
                                                 record.lsn, record.shard));
                               }
                               if (record.lsn <= applied_[record.shard].lsn) return {};
                               ++records_;
                               return visit_(record);
                             }));
      if (!whole) return {};
      std::erase_if(doubtful_,
                    [&](const Doubtful& one) { return one.last_lsn <= header->durable_lsn; });
      if (records_ != visited) {
        doubtful_.push_back({place.segment, place.offset, header->bytes, header->last_lsn()});
      }
      last_lsn_ = header->last_lsn();
      place.offset += header->bytes;
    }
  }

  // A batch behind `from` that proves that a record after last_lsn_ was acknowledged.
  Result<std::optional<Place>> find_later(const Place& from) {
    for (size_t i = from.segment; i < segments_.size(); ++i) {
      const Segment& segment = segments_[i];
      BASALT_CHECK_OK(reader_.open(place_, segment.file.number));
      uint64_t offset = i == from.segment ? from.offset : kSegmentDataOffset;
      const uint64_t end =
          std::min<uint64_t>(segment.file.header.size_bytes, offset + kLookAheadBytes);
      while (offset < end) {
        if (offset % (1u << 20) == 0) offset = reader_.skip_hole(offset);
        if (offset >= end) break;
        BASALT_TRY(block, reader_.at(offset, kBlockBytes));
        if (block.size() < kBlockBytes) break;
        auto header = ours(parse_batch_header(block, segment.file.header.generation));
        // Not the damaged batch itself, whose header may be intact: its durable_lsn lies before its
        // own records.
        if (header && header->first_lsn > last_lsn_ && header->durable_lsn > last_lsn_)
          return Place{i, offset, *header};
        offset += kBlockBytes;
      }
    }
    return std::nullopt;
  }

  void note_damage(const Place& place, const Place& later) {
    std::string text = fmt::format(
        "log segment {:08x} is damaged at offset {}: records after LSN {} up to LSN {} were "
        "acknowledged (the batch in "
        "segment {:08x} at offset {} says that LSN {} was durable) and cannot be read",
        segments_[place.segment].file.number, place.offset, last_lsn_, later.header.previous_lsn,
        segments_[later.segment].file.number, later.offset, later.header.durable_lsn);
    log_error("acknowledged log records are damaged", {{"detail", text}});
    if (!damage_) damage_ = Error{Code::kCorrupt, std::move(text)};
  }

  // A batch with visited records that may not be on stable storage: of the last ones, a few.
  struct Doubtful {
    size_t segment;
    uint64_t offset;
    uint32_t bytes;
    uint64_t last_lsn;
  };

  const DiskPlace place_;
  std::vector<Segment> segments_;
  std::span<const LogPosition> applied_;
  const bool trust_checkpoints_;
  const bool served_;  // what is visited; what is not there now must not come later
  const std::function<Status(const RecoveredRecord&)>& visit_;
  SegmentReader reader_;
  uint64_t epoch_ = 0;
  uint32_t lane_ = 0;
  uint64_t last_lsn_ = 0;
  uint64_t lowest_ = 0;  // applied by all shards of the lane
  uint64_t recycled_up_to_ = 0;
  uint64_t records_ = 0;
  std::vector<Doubtful> doubtful_;
  std::optional<Error> damage_;
};

}  // namespace

Status replay_log_files(const DiskPlace& place, std::vector<LocalFiles::LogFile> files,
                        std::span<const LogPosition> applied, const ReplayOptions& options,
                        const std::function<Status(const RecoveredRecord&)>& visit) {
  std::vector<uint8_t> memory;
  uint64_t oldest_epoch = UINT64_MAX;
  for (const LogPosition& position : applied)
    oldest_epoch = std::min(oldest_epoch, position.lsn >> kLsnEpochShift);
  std::optional<Error> damage;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<Segment>> chains;
  for (LocalFiles::LogFile& file : files) {
    if (!file.damaged) {
      auto key = std::pair(file.header.epoch, file.header.lane);
      chains[key].push_back(Segment{std::move(file), std::nullopt});
      continue;
    }
    // A crash while the file was made leaves it without a header, and empty. Batches without a
    // header in front of them are damage: a segment in reuse keeps one of its two headers valid all
    // the time.
    SegmentReader reader(memory);
    BASALT_CHECK_OK(reader.open(place, file.number));
    BASALT_TRY(block, reader.at(kSegmentDataOffset, kBlockBytes));
    if (block.size() < kBlockBytes ||
        std::all_of(block.begin(), block.end(), [](uint8_t b) { return b == 0; }))
      continue;
    // A batch carries the generation its checksum is seeded with. Of an epoch before all that the
    // indexes wait for, it is in them: its bodies stay readable without a header.
    uint32_t generation = 0;
    std::memcpy(&generation, block.data() + offsetof(BatchHeader, generation), sizeof generation);
    if (auto first = parse_batch_header(block, generation); first && first->epoch < oldest_epoch) {
      log_warn("a log segment without a valid header is in the index already",
               {{"segment", file.number}});
      continue;
    }
    if (!damage) {
      damage = Error{Code::kCorrupt,
                     fmt::format("log segment {:08x} holds data, but both its headers are damaged",
                                 file.number)};
    }
  }
  std::vector<std::unique_ptr<ChainReplay>> replayed;
  for (auto& [key, segments] : chains) {
    replayed.push_back(
        std::make_unique<ChainReplay>(place, std::move(segments), applied, options, visit, memory));
    ChainReplay& chain = *replayed.back();
    BASALT_CHECK_OK(chain.run());
    if (chain.records() > 0) {
      log_info("log replayed",
               {{"epoch", key.first}, {"lane", key.second}, {"records", chain.records()}});
    }
    if (chain.damage() && !damage) damage = chain.damage();
  }
  if (damage) return std::unexpected(*damage);
  for (const auto& chain : replayed) {
    if (options.make_durable) BASALT_CHECK_OK(chain->make_durable());
  }
  return {};
}

Status replay_log(Files& files, std::span<const LogPosition> applied,
                  const std::function<Status(const RecoveredRecord&)>& visit) {
  LocalFiles& disk = local(files);
  return replay_log_files({disk.disk(), disk.directory_fd()}, disk.log_files(), applied,
                          {.make_durable = true}, visit);
}

void finish_replay(Files& files) { local(files).finish_replay(); }

}  // namespace basalt::storage
