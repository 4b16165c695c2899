// The BlobStore of one core: hands places in segments and files to writers, reads go to BlobReader.
#include "storage/blob_store.h"

#include <algorithm>

#include "base/check.h"
#include "storage/blob_reader.h"
#include "storage/blob_writer.h"
#include "storage/files_local.h"
#include "storage/lane.h"
#include "storage/segment_format.h"
#include "storage/shared_flush.h"

namespace basalt::storage {
namespace {

class LocalBlobStore;

// What the caller owns; the state stays with the store until its writes have ended.
class WriterHandle final : public BlobWriter {
 public:
  WriterHandle(LocalBlobStore& store, BlobWriteState& state) : store_(store), state_(state) {}
  ~WriterHandle() override;
  MutableBytes room() override { return state_.room(); }
  void advance(size_t bytes) override { state_.advance(bytes); }
  void keep_from(uint64_t position) override { state_.keep_from(position); }
  void wait(WriterReady& ready) override { state_.wait(ready); }
  void seal(SealBlob& seal) override { state_.seal(seal); }
  void discard() override { state_.give_back(); }
  void recorded() override { state_.recorded(); }

 private:
  LocalBlobStore& store_;
  BlobWriteState& state_;
};

class LocalBlobStore final : public BlobStore, private BlobPlaces, private SpaceClient {
 public:
  LocalBlobStore(LocalFiles& files, unsigned core, const EngineOptions& options, Io& io,
                 RunQueue& run_queue, BufferPool& buffers, EngineStats& stats)
      : files_(files),
        core_(core),
        io_(io),
        run_queue_(run_queue),
        buffers_(buffers),
        stats_(stats),
        reader_(files, io, run_queue, buffers, stats) {
    uint64_t in_segment_max = files.superblock().bulk_segment_bytes - kSegmentDataOffset;
    own_file_bytes_min_ = std::min(options.own_file_bytes_min, in_segment_max);
    files_.attach(core_, LocalFiles::Role::kBlobs, io_, *this);
  }

  ~LocalBlobStore() override {
    auto busy = [this] {
      return reader_.busy() || std::any_of(writers_.begin(), writers_.end(),
                                           [](auto& writer) { return writer->busy(); });
    };
    while (busy()) {
      io_.poll();
      run_queue_.run();
    }
    BASALT_CHECK(handles_ == 0);  // writers belong to requests, and those have ended
    files_.detach(core_, LocalFiles::Role::kBlobs);
    writers_.clear();
    if (bulk_ != nullptr) files_.seal_bulk(*bulk_);
  }

  Result<std::unique_ptr<BlobWriter>> create(uint64_t size) override {
    return make_writer(size, true);
  }

  Result<std::unique_ptr<BlobWriter>> create_reclaiming(uint64_t size) override {
    return make_writer(size, false);
  }

  Result<std::unique_ptr<BlobWriter>> make_writer(uint64_t size, bool paced) {
    if (!files_.healthy()) return fail(Code::kReadOnly, files_.health_text());
    if (size == 0) return fail(Code::kInvalid, "empty blob");
    if (size != kSizeUnknown && size > kBlobBytesMax) return fail(Code::kTooLarge, "blob");
    collect();
    BlobKind kind = BlobKind::kFile;
    if (size < own_file_bytes_min_ &&
        stored_bytes(size) <= files_.superblock().bulk_segment_bytes - kSegmentDataOffset) {
      kind = BlobKind::kBulk;
    }
    Buffer first = buffers_.take(std::min<uint64_t>(
        round_up(std::min<uint64_t>(size, kWriteBufferBytes), kBlockBytes), kWriteBufferBytes));
    if (!first) return fail(Code::kBusy, "no buffer for a writer");
    writers_.push_back(std::make_unique<BlobWriteState>(static_cast<BlobPlaces&>(*this), files_,
                                                        io_, run_queue_, buffers_, stats_, kind,
                                                        size, paced, std::move(first)));
    BlobWriteState& state = *writers_.back();
    state.try_place();
    ++handles_;
    if (paced && state.error()) {
      Error error = *state.error();
      handle_gone(state);
      return std::unexpected(std::move(error));
    }
    return std::make_unique<WriterHandle>(*this, state);
  }

  void read(ReadBlob& request) override { reader_.read(request); }
  std::optional<FileRange> file_range(const BlobRef& blob, uint64_t offset,
                                      uint64_t length) override {
    return reader_.file_range(blob, offset, length);
  }
  bool still_there(const FileRange& range, uint64_t offset, uint64_t length) override {
    return reader_.still_there(range, offset, length);
  }
  std::unique_ptr<ReadGuard> guard() override { return files_.guard(core_); }

  void handle_gone(BlobWriteState& state) {
    --handles_;
    state.drop_handle();
    collect();
  }

 private:
  // Frees writers that have ended; those with writes in flight are left for the next call.
  void collect() {
    std::erase_if(writers_, [](const auto& writer) { return writer->finished(); });
    std::erase_if(flushes_, [this](const SegmentFlush& one) {
      return one.segment != bulk_ && one.flush->idle();
    });
  }

  void space_changed() override {
    collect();
    // By index: a completion never runs in here, but a place given back may not invalidate the walk
    // either.
    for (size_t i = 0; i < writers_.size(); ++i) {
      if (writers_[i]->waits_for_place()) writers_[i]->try_place();
    }
  }

  Result<std::optional<Place>> find_place(BlobKind kind, uint64_t bytes) override {
    Place place;
    place.kind = kind;
    if (kind == BlobKind::kFile) {
      BASALT_TRY(file, files_.take_own_file(core_));
      if (!file) return std::optional<Place>();
      place.own = std::move(*file);
      place.file = place.own.number;
      place.fd = place.own.fd.get();
      do {
        place.generation = static_cast<uint32_t>(files_.platform().random->u64());
      } while (place.generation == 0);
      return std::optional<Place>(std::move(place));
    }
    if (bulk_ == nullptr || bulk_->size - bulk_position_ < bytes) {
      BASALT_TRY(segment, files_.take_bulk_segment(core_));
      if (segment == nullptr) return std::optional<Place>();
      if (bulk_ != nullptr) files_.seal_bulk(*bulk_);
      bulk_ = std::move(segment);
      bulk_position_ = kSegmentDataOffset;
      bulk_prefetched_ = false;
    }
    files_.pin(*bulk_->entry);
    place.bulk = bulk_;
    place.file = bulk_->number;
    place.generation = bulk_->generation;
    place.offset = bulk_position_;
    place.fd = bulk_->fd.get();
    bulk_position_ += bytes;
    if (!bulk_prefetched_ && bulk_position_ > bulk_->size / 2) {
      bulk_prefetched_ = true;
      files_.prefetch_bulk_segment(core_);
    }
    return std::optional<Place>(std::move(place));
  }

  void give_back(Place& place) override {
    if (place.kind == BlobKind::kFile) {
      files_.end_own_file(std::move(place.own));
    } else {
      // An extent that nobody recorded is dead space until its segment is recycled.
      files_.unpin(*place.bulk->entry);
      place.bulk.reset();
    }
  }

  void flush(Place& place, IoOp& call) override {
    auto found = std::find_if(flushes_.begin(), flushes_.end(),
                              [&](const SegmentFlush& one) { return one.segment == place.bulk; });
    if (found == flushes_.end()) {
      flushes_.push_back(
          {place.bulk, std::make_unique<SharedFlush>(place.fd, io_, run_queue_, stats_)});
      found = flushes_.end() - 1;
    }
    found->flush->add(call);
  }

  struct SegmentFlush {
    std::shared_ptr<BulkSegment> segment;
    std::unique_ptr<SharedFlush> flush;
  };

  LocalFiles& files_;
  const unsigned core_;
  Io& io_;
  RunQueue& run_queue_;
  BufferPool& buffers_;
  EngineStats& stats_;
  BlobReader reader_;
  std::vector<SegmentFlush>
      flushes_;  // of bulk_, and of earlier ones whose last writers have not ended
  uint64_t own_file_bytes_min_ = 0;
  std::vector<std::unique_ptr<BlobWriteState>> writers_;
  size_t handles_ = 0;
  std::shared_ptr<BulkSegment> bulk_;
  uint64_t bulk_position_ = 0;
  bool bulk_prefetched_ = false;
};

WriterHandle::~WriterHandle() { store_.handle_gone(state_); }

}  // namespace

std::unique_ptr<BlobStore> make_blob_store(Files& files, unsigned core,
                                           const EngineOptions& options, Io& io,
                                           RunQueue& run_queue, BufferPool& buffers,
                                           EngineStats& stats) {
  return std::make_unique<LocalBlobStore>(local(files), core, options, io, run_queue, buffers,
                                          stats);
}

}  // namespace basalt::storage
