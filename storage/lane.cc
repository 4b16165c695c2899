// The log of one core: forms batches, sends them one behind the other, completes appends in order.
//
// Three buffers: at most two batches in flight and one being formed. The second is sent while the
// first is under way only when it is large (kSecondBatchBytesMin): small ones wait and grow, so
// that many clients share one flush. Sending is posted to the run queue, so all appends of one loop
// turn are in the batch before it leaves.
#include "storage/lane.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

#include "base/check.h"
#include "storage/files_local.h"
#include "storage/seeded_bugs.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

constexpr size_t kBatchBuffers = 3;
constexpr size_t kBatchesInFlightMax = 2;
constexpr size_t kSecondBatchBytesMin = 256u << 10;
// How finely bytes_since_checkpoint() knows where a checkpoint's LSN lies.
constexpr uint64_t kMarkBytes = 256u << 10;
constexpr uint64_t kKickBytes = 2u << 20;

// Appends linked by Completion::next, in LSN order.
class AppendList {
 public:
  bool empty() const { return head_ == nullptr; }
  Append& front() const { return static_cast<Append&>(*head_); }
  size_t size() const { return size_; }
  void push(Append& append) {
    append.next = nullptr;
    *tail_ = &append;
    tail_ = &append.next;
    ++size_;
  }
  Append& pop() {
    Completion* first = head_;
    head_ = first->next;
    if (head_ == nullptr) tail_ = &head_;
    --size_;
    return static_cast<Append&>(*first);
  }

 private:
  Completion* head_ = nullptr;
  Completion** tail_ = &head_;
  size_t size_ = 0;
};

class LogLane;

struct Batch {
  uint8_t* memory = nullptr;
  BatchBuilder builder;
  AppendList appends;
  std::shared_ptr<LogSegment> segment;
  uint64_t offset = 0;
  uint64_t end = 0;  // offset + bytes, once sent
  uint64_t last_lsn = 0;
  bool ended = false;
  struct Op : IoOp {
    LogLane* lane = nullptr;
    Batch* batch = nullptr;
  } op;
};

class LogLane final : public Lane, private SpaceClient {
 public:
  LogLane(LocalFiles& files, unsigned core, Io& io, RunQueue& run_queue, EngineStats& stats)
      : files_(files), core_(core), io_(io), run_queue_(run_queue), stats_(stats) {
    epoch_ = files.superblock().epoch;
    sent_lsn_ = durable_.lsn = files.last_lsn(core);
    next_lsn_ = sent_lsn_ + 1;
    durable_.epoch = epoch_;
    batch_bytes_max_ = std::clamp<size_t>(files.superblock().log_segment_bytes / 8, size_t{1} << 20,
                                          kBatchBytesMax);
    memory_bytes_ = kBatchBuffers * batch_bytes_max_;
    void* memory =
        ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    BASALT_CHECK(memory != MAP_FAILED);
    memory_ = static_cast<uint8_t*>(memory);
    for (size_t i = 0; i < kBatchBuffers; ++i) {
      batches_[i].memory = memory_ + i * batch_bytes_max_;
      batches_[i].op.fn = &LogLane::batch_ended;
      batches_[i].op.lane = this;
      batches_[i].op.batch = &batches_[i];
      free_.push_back(&batches_[i]);
    }
    step_.fn = &LogLane::run_step;
    step_.lane = this;
    files_.attach(core_, LocalFiles::Role::kLane, io_, *this);
    // The first segment is made ready now and not under the first client.
    files_.prefetch_log_segment(core_);
  }

  ~LogLane() override {
    stopping_ = true;
    while (!in_flight_.empty() || step_posted_) {
      io_.poll();
      run_queue_.run();
    }
    files_.detach(core_, LocalFiles::Role::kLane);
    fail_unsent({Code::kCancelled, "the server stops"});
    files_.set_last_lsn(core_, sent_lsn_);
    if (segment_ != nullptr) files_.seal_log(*segment_, sent_lsn_);
    ::munmap(memory_, memory_bytes_);
  }

  void append(Append& append) override {
    append.lsn = 0;
    append.body_ref = BlobRef{};
    append.result = Status{};
    size_t bytes = record_bytes(append.mutations.size(), append.body.size());
    if (stopping_) return refuse(append, Code::kCancelled, "the server stops");
    if (failed_ || !files_.healthy()) return refuse(append, Code::kReadOnly, files_.health_text());
    if (append.mutations.empty()) return refuse(append, Code::kInvalid, "no mutations");
    if (append.mutations.size() > kMutationsBytesMax || append.body.size() > kInlineBodyBytesMax) {
      return refuse(append, Code::kTooLarge, "log record");
    }
    if (files_.platform().happens(Chaos::Point::kLaneQueueFull))
      return refuse(append, Code::kBusy, "log queue");
    if (!queue_.empty() || !add_to_batch(append)) {
      if (queue_bytes_ + bytes > kLaneQueueBytesMax)
        return refuse(append, Code::kBusy, "log queue");
      append.lsn = next_lsn_++;
      queue_bytes_ += bytes;
      queue_.push(append);
    }
    post_step();
  }

  LogPosition durable_position() const override { return durable_; }

  uint64_t bytes_since_checkpoint() const override {
    uint64_t lsn = files_.checkpointed_lsn(core_);
    if (lsn >= sent_lsn_) return 0;
    while (!marks_.empty() && marks_.front().lsn <= lsn) {
      checkpointed_bytes_ = marks_.front().bytes;
      marks_.pop_front();
    }
    return sent_bytes_ - checkpointed_bytes_;
  }

  size_t queued() const override {
    size_t count = queue_.size();
    if (forming_ != nullptr) count += forming_->appends.size();
    for (const Batch* batch : in_flight_) count += batch->appends.size();
    return count;
  }

  bool poll() override {
    if (!can_send()) return false;
    send();
    return true;
  }

  void hold(bool held) override {
    held_ = held;
    if (!held) post_step();
  }

 private:
  struct Step : Completion {
    LogLane* lane = nullptr;
  };

  static void run_step(Completion& completion) {
    LogLane& lane = *static_cast<Step&>(completion).lane;
    lane.step_posted_ = false;
    if (lane.files_.platform().happens(Chaos::Point::kLaneWaits)) return lane.post_step();
    lane.send();
  }

  void post_step() {
    if (step_posted_ || stopping_) return;
    step_posted_ = true;
    run_queue_.post(step_);
  }

  void space_changed() override {
    waiting_for_space_ = false;
    post_step();
  }

  void refuse(Append& append, Code code, std::string detail) {
    append.lsn = 0;
    append.result = fail(code, std::move(detail));
    run_queue_.post(append);
  }

  // Starts a batch where the log ends, in the next segment if `bytes` do not fit the current one.
  bool start_batch(size_t bytes) {
    if (free_.empty() || waiting_for_space_ || space_error_) return false;
    size_t wanted = round_up(sizeof(BatchHeader) + bytes, kBlockBytes);
    if (segment_ == nullptr ||
        segment_->size - segment_->position.load(std::memory_order_relaxed) < wanted) {
      auto taken = files_.take_log_segment(core_);
      if (!taken) {
        space_error_ = taken.error();
        return false;
      }
      if (*taken == nullptr) {
        waiting_for_space_ = true;  // until space_changed()
        return false;
      }
      if (segment_ != nullptr) files_.seal_log(*segment_, sent_lsn_);
      segment_ = std::move(*taken);
      kicked_at_ = 0;
      prefetched_ = false;
    }
    uint64_t position = segment_->position.load(std::memory_order_relaxed);
    forming_ = free_.back();
    free_.pop_back();
    forming_->segment = segment_;
    forming_->offset = position;
    forming_->ended = false;
    size_t capacity = std::min<uint64_t>(batch_bytes_max_, segment_->size - position);
    forming_->builder.start(MutableBytes(forming_->memory, batch_bytes_max_), capacity,
                            segment_->number, segment_->generation, position);
    return true;
  }

  // Copies the append into the forming batch. False: it has to wait.
  bool add_to_batch(Append& append) {
    size_t bytes = record_bytes(append.mutations.size(), append.body.size());
    if (forming_ == nullptr && !start_batch(bytes)) return false;
    if (!forming_->builder.fits(bytes)) {
      batch_full_ = true;
      return false;
    }
    if (append.lsn == 0) append.lsn = next_lsn_++;
    append.body_ref =
        forming_->builder.add(append.lsn, append.shard, append.mutations, append.body);
    forming_->appends.push(append);
    return true;
  }

  bool can_send() const {
    // Where writes have stopped there is nothing to hold back: what waits is told so.
    if (held_ && files_.healthy()) return false;
    if (stopping_ || waiting_for_space_ || in_flight_.size() >= kBatchesInFlightMax) return false;
    if (forming_ == nullptr) return !queue_.empty();
    if (forming_->builder.count() == 0) return !queue_.empty();
    return in_flight_.empty() || batch_full_ || forming_->builder.used() >= kSecondBatchBytesMin;
  }

  void send() {
    while (can_send()) {
      drain_queue();
      if (space_error_ || !files_.healthy()) {
        if (!in_flight_.empty()) return;  // those complete first; their end calls again
        Error error{Code::kReadOnly, {}};
        if (files_.healthy()) {
          error = *space_error_;
        } else {
          error.detail = files_.health_text();
        }
        space_error_.reset();
        fail_unsent(error);
        return;
      }
      if (forming_ == nullptr || forming_->builder.count() == 0) return;
      Batch& batch = *forming_;
      batch.end = batch.offset + round_up(batch.builder.used(), kBlockBytes);
      if (!batch.segment->claim(batch.end)) {
        waiting_for_space_ = true;  // zeros are just being written there
        return;
      }
      send_batch(batch);
      drain_queue();
    }
  }

  void drain_queue() {
    while (!queue_.empty()) {
      Append& append = queue_.front();
      size_t bytes = record_bytes(append.mutations.size(), append.body.size());
      if (forming_ == nullptr && !start_batch(bytes)) return;
      if (!forming_->builder.fits(bytes)) {
        batch_full_ = true;
        return;
      }
      queue_.pop();
      queue_bytes_ -= bytes;
      BASALT_CHECK(add_to_batch(append));
    }
  }

  void send_batch(Batch& batch) {
    BatchHeader header;
    header.lane = core_;
    header.epoch = epoch_;
    header.batch_number = ++batch_number_;
    header.previous_lsn = sent_lsn_;
    header.durable_lsn = durable_.lsn;
    header.checkpointed_lsn = std::min(durable_.lsn, files_.checkpointed_lsn(core_));
    Bytes bytes = batch.builder.finish(header);
    batch.last_lsn = batch.builder.first_lsn() + batch.builder.count() - 1;
    sent_lsn_ = batch.last_lsn;
    sent_bytes_ += bytes.size();
    if (marks_.empty() || sent_bytes_ - marks_.back().bytes >= kMarkBytes)
      marks_.push_back({sent_lsn_, sent_bytes_});

    LogSegment& segment = *batch.segment;
    segment.position.store(batch.end, std::memory_order_relaxed);
    if (batch.end - kicked_at_ >= kKickBytes) {
      kicked_at_ = batch.end;
      files_.kick();  // zeros ahead
    }
    if (!prefetched_ && batch.end > segment.size / 2) {
      prefetched_ = true;
      files_.prefetch_log_segment(core_);
    }

    batch.op.kind = seeded::kAckBeforeFlush ? IoOp::Kind::kWrite : IoOp::Kind::kWriteDataSync;
    batch.op.fd = segment.fd.get();
    batch.op.data = batch.memory;
    batch.op.length = static_cast<uint32_t>(bytes.size());
    batch.op.offset = batch.offset;
    forming_ = nullptr;
    batch_full_ = false;
    in_flight_.push_back(&batch);
    io_.submit(batch.op);
    stats_.log_batches.fetch_add(1, std::memory_order_relaxed);
    stats_.log_records.fetch_add(batch.builder.count(), std::memory_order_relaxed);
    stats_.log_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
    stats_.device_flushes.fetch_add(1, std::memory_order_relaxed);
  }

  static void batch_ended(Completion& completion) {
    auto& op = static_cast<Batch::Op&>(completion);
    op.batch->ended = true;
    // At once, also when an earlier batch is still under way: the kernel tells an error of the file
    // once, and the sync of the earlier one may succeed now although its bytes are lost.
    if (op.result != static_cast<int64_t>(op.length)) op.lane->note_failure(*op.batch);
    op.lane->complete_batches();
  }

  void note_failure(const Batch& batch) {
    if (failed_) return;
    // Whether the bytes are on the disk is not known and will not be: nothing may be appended
    // behind them (P7).
    failed_ = true;
    stats_.io_errors.fetch_add(1, std::memory_order_relaxed);
    failure_ = fmt::format(
        "log write to {} at {}: {}", LocalFiles::path_of(FileKind::kLog, batch.segment->number),
        batch.offset,
        batch.op.result < 0 ? std::strerror(static_cast<int>(-batch.op.result)) : "short");
    files_.poison(failure_);
  }

  void complete_batches() {
    if (seeded::kLaterBatchFirst && in_flight_.size() == 2 && in_flight_.back()->ended) {
      std::swap(in_flight_.front(), in_flight_.back());
    }
    if (!failed_ && !files_.healthy()) {
      // Another write failed, perhaps of this very file (zeros ahead) or on this disk: then a sync
      // that says it went well is not believed.
      failed_ = true;
      failure_ = files_.health_text();
    }
    while (!in_flight_.empty() && in_flight_.front()->ended) {
      Batch& batch = *in_flight_.front();
      in_flight_.pop_front();
      if (!failed_) {
        durable_.lsn = batch.last_lsn;
        durable_.file = batch.segment->number;
        durable_.offset = batch.end;
      }
      while (!batch.appends.empty()) {
        Append& append = batch.appends.pop();
        if (failed_) append.result = fail(Code::kIo, failure_);
        run_queue_.post(append);
      }
      batch.segment.reset();
      free_.push_back(&batch);
    }
    if (failed_) {
      if (in_flight_.empty()) fail_unsent({Code::kIo, failure_});
      return;
    }
    if (can_send()) post_step();
  }

  // Completes what was never written, in order. Its numbers are not used again: the next batch says
  // what came before.
  void fail_unsent(const Error& error) {
    if (forming_ != nullptr) {
      while (!forming_->appends.empty()) {
        Append& append = forming_->appends.pop();
        append.result = std::unexpected(error);
        run_queue_.post(append);
      }
      forming_->segment.reset();
      free_.push_back(forming_);
      forming_ = nullptr;
      batch_full_ = false;
    }
    while (!queue_.empty()) {
      Append& append = queue_.pop();
      append.result = std::unexpected(error);
      run_queue_.post(append);
    }
    queue_bytes_ = 0;
  }

  LocalFiles& files_;
  const unsigned core_;
  Io& io_;
  RunQueue& run_queue_;
  EngineStats& stats_;

  uint64_t epoch_ = 0;
  size_t batch_bytes_max_ = 0;
  uint8_t* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  std::array<Batch, kBatchBuffers> batches_;
  std::vector<Batch*> free_;
  std::deque<Batch*> in_flight_;
  Batch* forming_ = nullptr;
  bool batch_full_ = false;  // the next append does not fit the forming batch
  AppendList queue_;
  size_t queue_bytes_ = 0;

  std::shared_ptr<LogSegment> segment_;
  uint64_t kicked_at_ = 0;
  bool prefetched_ = false;
  bool waiting_for_space_ = false;  // nothing can be sent before space_changed()
  uint64_t next_lsn_ = 0;
  uint64_t sent_lsn_ = 0;
  uint64_t batch_number_ = 0;
  LogPosition durable_;

  struct Mark {
    uint64_t lsn, bytes;
  };
  uint64_t sent_bytes_ = 0;
  mutable uint64_t checkpointed_bytes_ = 0;
  mutable std::deque<Mark> marks_;

  Step step_;
  bool step_posted_ = false;
  bool held_ = false;
  bool stopping_ = false;
  bool failed_ = false;
  std::string failure_;
  std::optional<Error> space_error_;
};

}  // namespace

std::unique_ptr<Lane> make_lane(Files& files, unsigned core, Io& io, RunQueue& run_queue,
                                EngineStats& stats) {
  return std::make_unique<LogLane>(local(files), core, io, run_queue, stats);
}

}  // namespace basalt::storage
