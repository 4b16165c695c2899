#include "storage/memory_engine.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "storage/generated/record_generated.h"
#include "storage/record_codec.h"

namespace basalt::storage {

uint32_t MemoryBlobs::add(std::vector<uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  blobs_[next_] = std::move(bytes);
  return next_++;
}

bool MemoryBlobs::read(const BlobRef& blob, uint64_t offset, MutableBytes out) const {
  const std::lock_guard lock(mutex_);
  const auto at = blobs_.find(blob.file);
  if (at == blobs_.end() || offset > at->second.size() || out.size() > at->second.size() - offset)
    return false;
  std::memcpy(out.data(), at->second.data() + offset, out.size());
  return true;
}

void MemoryBlobs::release(const BlobRef& blob) {
  const std::lock_guard lock(mutex_);
  blobs_.erase(blob.file);
}

size_t MemoryBlobs::count() const {
  const std::lock_guard lock(mutex_);
  return blobs_.size();
}

namespace {

constexpr size_t kModelRoomBytes = 64 * 1024;

class ModelWriter final : public BlobWriter {
 public:
  ModelWriter(MemoryBlobs& blobs, RunQueue& run_queue, uint64_t size)
      : blobs_(blobs), run_queue_(run_queue), size_(size) {}
  ~ModelWriter() override {
    if (sealed_ && !recorded_) blobs_.release(ref_);
  }
  MutableBytes room() override {
    if (used_ == rooms_.back().size()) {
      rooms_.emplace_back(kModelRoomBytes);
      used_ = 0;
    }
    return MutableBytes(rooms_.back()).subspan(used_);
  }
  void advance(size_t bytes) override {
    const Bytes given = room().first(bytes);
    bytes_.insert(bytes_.end(), given.begin(), given.end());
    used_ += bytes;
    if (keep_from_ == UINT64_MAX) used_ = 0;
  }
  // All is kept once anything is.
  void keep_from(uint64_t position) override { keep_from_ = position; }
  void wait(WriterReady& ready) override {
    ready.result = {};
    run_queue_.post(ready);
  }
  void seal(SealBlob& seal) override {
    if (size_ != kSizeUnknown && size_ != bytes_.size()) {
      seal.result = fail(Code::kInvalid, "another size than announced");
    } else {
      ref_.length = bytes_.size();
      ref_.kind = static_cast<uint8_t>(BlobKind::kBulk);
      ref_.file = blobs_.add(std::move(bytes_));
      sealed_ = true;
      seal.result = SealedBlob{ref_};
    }
    run_queue_.post(seal);
  }
  void discard() override {
    if (sealed_ && !recorded_) blobs_.release(ref_);
    sealed_ = false;
  }
  void recorded() override { recorded_ = true; }

 private:
  MemoryBlobs& blobs_;
  RunQueue& run_queue_;
  const uint64_t size_;
  std::deque<std::vector<uint8_t>> rooms_{std::vector<uint8_t>(kModelRoomBytes)};
  size_t used_ = 0;  // of the last
  uint64_t keep_from_ = UINT64_MAX;
  std::vector<uint8_t> bytes_;
  BlobRef ref_;
  bool sealed_ = false;
  bool recorded_ = false;
};

class ModelBlobStore final : public BlobStore {
 public:
  ModelBlobStore(MemoryBlobs& blobs, RunQueue& run_queue, BufferPool& buffers)
      : blobs_(blobs), run_queue_(run_queue), buffers_(buffers) {}
  Result<std::unique_ptr<BlobWriter>> create(uint64_t size) override {
    if (size == 0) return fail(Code::kInvalid, "an empty blob");
    return std::make_unique<ModelWriter>(blobs_, run_queue_, size);
  }
  void read(ReadBlob& request) override {
    BASALT_CHECK(request.length > 0 && request.length <= kBlobReadBytesMax);
    Buffer buffer = buffers_.take(request.length);
    if (!buffer) {
      request.result = fail(Code::kBusy, "no buffer");
    } else if (!blobs_.read(request.blob, request.offset, buffer.bytes().first(request.length))) {
      request.result = fail(Code::kCorrupt, "no such blob");
    } else {
      const Bytes data = buffer.bytes().first(request.length);
      request.result = BlobSlice{std::move(buffer), data};
    }
    run_queue_.post(request);
  }
  std::optional<FileRange> file_range(const BlobRef&, uint64_t, uint64_t) override {
    return std::nullopt;
  }
  std::unique_ptr<ReadGuard> guard() override { return std::make_unique<ReadGuard>(); }

 private:
  MemoryBlobs& blobs_;
  RunQueue& run_queue_;
  BufferPool& buffers_;
};

struct ModelRecord {
  uint64_t seq = 0, size = 0;
  std::string tag;
  std::vector<uint8_t> meta;
  std::vector<BlobRef> blobs;
  BlobRef body;
  std::vector<uint8_t> inline_body;

  RecordView view() const { return {seq, size, tag, meta, blobs, body, inline_body}; }
};

class ModelShard final : public MetaShard {
 public:
  ModelShard(MemoryBlobs& blobs, RunQueue& run_queue, uint64_t& seq)
      : blobs_(blobs), run_queue_(run_queue), seq_(seq) {}

  void apply(ApplyRequest& request) override {
    request.result = do_apply(request);
    run_queue_.post(request);
  }
  void get(GetRequest& request) override {
    request.result = get_now(request.key);
    run_queue_.post(request);
  }
  Result<Record> get_now(const KeyView& key) override {
    const auto at = records_.find(Key(key.table, key.space, std::string(key.name)));
    if (at == records_.end()) return fail(Code::kNotFound);
    return Record(at->second.view());
  }
  void scan(ScanRequest& request) override {
    const ModelShard* const one = this;
    request.result = scan({&one, 1}, request.options);
    run_queue_.post(request);
  }
  void seal(SealRequest& request) override {
    request.result = do_seal(request);
    run_queue_.post(request);
  }
  void stop() { stopping_ = true; }

  // Every name of the space, in order, by the words of ScanPage: nothing clever.
  static Result<ScanPage> scan(std::span<const ModelShard* const> shards,
                               const ScanOptions& options) {
    if (options.limit == 0 || options.limit > 10'000) return fail(Code::kInvalid, "limit");
    std::map<std::string, const ModelRecord*> found;  // null: rolled up
    for (const ModelShard* shard : shards) shard->find(options, found);
    ScanPage page;
    for (const auto& [text, record] : found) {
      page.more = page.entries.size() == options.limit;
      if (page.more) break;
      ScanPage::Entry& entry = page.entries.emplace_back();
      auto& name = page.memory.emplace_back(std::make_unique<uint8_t[]>(text.size()));
      std::memcpy(name.get(), text.data(), text.size());
      entry.name = as_text({name.get(), text.size()});
      entry.common_prefix = record == nullptr;
      if (record != nullptr) show(*record, options, page, entry);
    }
    return page;
  }

 private:
  using Key = std::tuple<Table, uint64_t, std::string>;

  void find(const ScanOptions& options, std::map<std::string, const ModelRecord*>& found) const {
    const Key first(options.table, options.space, std::string());
    for (auto at = records_.lower_bound(first); at != records_.end(); ++at) {
      const auto& [table, space, name] = at->first;
      if (table != options.table || space != options.space) break;
      if (!name.starts_with(options.prefix)) continue;
      if (!options.delimiter.empty()) {
        const size_t split = name.find(options.delimiter, options.prefix.size());
        if (split != std::string::npos) {
          const std::string rolled = name.substr(0, split + options.delimiter.size());
          if (rolled > options.after) found[rolled] = nullptr;
          continue;
        }
      }
      if (name > options.after) found[name] = &at->second;
    }
  }

  static void show(const ModelRecord& shown, const ScanOptions& options, ScanPage& page,
                   ScanPage::Entry& entry) {
    // The page owns an encoded copy, decoded in place, as the local engine's does.
    const RecordView view = shown.view();
    flatbuffers::FlatBufferBuilder builder;
    const auto record = fb::CreateRecord(
        builder, view.size,
        builder.CreateVector(reinterpret_cast<const uint8_t*>(shown.tag.data()), view.tag.size()),
        builder.CreateVector(shown.meta),
        builder.CreateVectorOfStructs(reinterpret_cast<const fb::BlobRef*>(shown.blobs.data()),
                                      view.blobs.size()));
    builder.Finish(record);
    const KeyView key{options.table, options.space, entry.name};
    RecordEncoder encoder;
    ValueBuffer value =
        encoder.encode(key, view.seq, *flatbuffers::GetRoot<fb::Record>(builder.GetBufferPointer()),
                       view.body, view.inline_body);
    auto decoded = decode_record(key, value.view());
    BASALT_CHECK(decoded.has_value());
    entry.record = *decoded;
    page.memory.push_back(std::move(value.bytes));
    if (options.select == nullptr) return;
    auto& selected = page.memory.emplace_back(std::make_unique<uint8_t[]>(kSelectedBytesMax));
    const size_t size = options.select(decoded->meta, selected.get());
    entry.record = {.seq = decoded->seq,
                    .size = decoded->size,
                    .tag = decoded->tag,
                    .meta = {selected.get(), size}};
  }

  Result<Applied> do_apply(ApplyRequest& request) {
    if (stopping_) return fail(Code::kCancelled);
    const AlignedBytes bytes(request.mutations);
    BASALT_TRY(batch, verify_batch(bytes.view(), request.body.size()));
    for (const fb::Mutation* mutation : *batch->mutations()) {
      const KeyView key = key_of(*mutation);
      if (mutation->action() == fb::Action::Put && key.table <= Table::kPart &&
          sealed_.contains(key.space)) {
        return fail(Code::kSealed);
      }
    }
    for (size_t i = 0; i < request.preconditions.size(); ++i) {
      request.failed_index = static_cast<uint32_t>(i);
      const Precondition& condition = request.preconditions[i];
      const auto at = records_.find(
          Key(condition.key.table, condition.key.space, std::string(condition.key.name)));
      const ModelRecord* record = at == records_.end() ? nullptr : &at->second;
      using Kind = Precondition::Kind;
      if (condition.kind == Kind::kAbsent || condition.kind == Kind::kTagDiffers) {
        if (record == nullptr) continue;
        if (condition.kind == Kind::kAbsent || record->tag == condition.tag)
          return fail(Code::kPreconditionFailed);
        continue;
      }
      if (record == nullptr) return fail(Code::kNotFound);
      if (condition.kind == Kind::kTagEquals && record->tag != condition.tag)
        return fail(Code::kPreconditionFailed);
      if (condition.kind == Kind::kSeqEquals && record->seq != condition.seq)
        return fail(Code::kPreconditionFailed);
    }
    request.failed_index = 0;
    const uint64_t seq = ++seq_;
    std::vector<BlobRef> brought, dropped;
    for (const fb::Mutation* mutation : *batch->mutations()) {
      if (mutation->action() != fb::Action::Put) continue;
      for (size_t i = 0; i < blob_count(*mutation->record()); ++i)
        brought.push_back(blob_at(*mutation->record(), i));
    }
    for (const fb::Mutation* mutation : *batch->mutations()) {
      const KeyView view = key_of(*mutation);
      Key key(view.table, view.space, std::string(view.name));
      if (const auto old = records_.find(key); old != records_.end()) {
        for_each_file_blob(old->second.view(), [&](const BlobRef& blob) {
          if (!mutation->keep_blobs() && std::ranges::find(brought, blob) == brought.end())
            dropped.push_back(blob);
        });
        records_.erase(old);
      }
      if (mutation->action() != fb::Action::Put) continue;
      ModelRecord& record = records_[std::move(key)];
      record.seq = seq;
      record.size = mutation->record()->size();
      record.tag = tag_of(*mutation->record());
      if (const auto* meta = mutation->record()->meta())
        record.meta.assign(meta->begin(), meta->end());
      for (size_t i = 0; i < blob_count(*mutation->record()); ++i)
        record.blobs.push_back(blob_at(*mutation->record(), i));
      if (!mutation->has_body()) continue;
      record.body.length = request.body.size();
      if (request.body.size() <= kIndexBodyBytesMax) {
        record.body.kind = static_cast<uint8_t>(BlobKind::kIndex);
        record.inline_body.assign(request.body.begin(), request.body.end());
      } else {
        record.body.kind = static_cast<uint8_t>(BlobKind::kLog);
        record.body.file = blobs_.add({request.body.begin(), request.body.end()});
      }
    }
    for (const BlobRef& blob : dropped) blobs_.release(blob);
    return Applied{seq};
  }

  Status do_seal(const SealRequest& request) {
    const auto erase_table = [&](Table table) {
      const Key first(table, request.space, std::string());
      auto at = records_.lower_bound(first);
      while (at != records_.end() && std::get<0>(at->first) == table &&
             std::get<1>(at->first) == request.space) {
        for_each_file_blob(at->second.view(), [&](const BlobRef& blob) { blobs_.release(blob); });
        at = records_.erase(at);
      }
    };
    switch (request.action) {
      case SealRequest::Action::kSeal:
        for (const auto& [key, record] : records_) {
          if (std::get<0>(key) <= Table::kVersion && std::get<1>(key) == request.space)
            return fail(Code::kNotEmpty);
        }
        sealed_.insert(request.space);
        break;
      case SealRequest::Action::kUnseal:
        sealed_.erase(request.space);
        break;
      case SealRequest::Action::kPurge:
        if (stopping_) return fail(Code::kCancelled);
        erase_table(Table::kUpload);
        erase_table(Table::kPart);
        break;
    }
    return {};
  }

  MemoryBlobs& blobs_;
  RunQueue& run_queue_;
  uint64_t& seq_;
  std::map<Key, ModelRecord> records_;
  std::unordered_set<uint64_t> sealed_;
  bool stopping_ = false;
};

class ModelCore final : public CoreEngine {
 public:
  ModelCore(const MemoryCoreOptions& options, std::shared_ptr<MemoryBlobs> blobs,
            RunQueue& run_queue, BufferPool& buffers)
      : options_(options),
        blobs_(std::move(blobs)),
        run_queue_(run_queue),
        store_(*blobs_, run_queue, buffers) {
    for (unsigned shard = options.core; shard < options.shard_count; shard += options.core_count) {
      shards_.push_back(std::make_unique<ModelShard>(*blobs_, run_queue, seq_));
    }
  }
  MetaShard& shard(unsigned shard) override {
    BASALT_CHECK(shard % options_.core_count == options_.core && shard < options_.shard_count);
    return *shards_[shard / options_.core_count];
  }
  Result<ScanPage> scan(const ScanOptions& options) override {
    std::vector<const ModelShard*> shards;
    for (const auto& shard : shards_) shards.push_back(shard.get());
    return ModelShard::scan(shards, options);
  }
  BlobStore& blobs() override { return store_; }
  const EngineStats& stats() const override { return stats_; }
  void stop(Completion& stopped) override {
    for (auto& shard : shards_) shard->stop();
    run_queue_.post(stopped);
  }
  bool poll() override { return false; }

 private:
  const MemoryCoreOptions options_;
  const std::shared_ptr<MemoryBlobs> blobs_;
  RunQueue& run_queue_;
  EngineStats stats_;
  uint64_t seq_ = 0;
  ModelBlobStore store_;
  std::vector<std::unique_ptr<ModelShard>> shards_;
};

}  // namespace

std::unique_ptr<CoreEngine> make_memory_core(const MemoryCoreOptions& options,
                                             std::shared_ptr<MemoryBlobs> blobs,
                                             RunQueue& run_queue, BufferPool& buffers) {
  return std::make_unique<ModelCore>(options, std::move(blobs), run_queue, buffers);
}

}  // namespace basalt::storage
