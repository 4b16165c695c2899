#include "shards/core.h"

#include <sodium.h>

#include <cstring>
#include <type_traits>

#include "base/block_pool.h"
#include "base/check.h"
#include "base/log.h"
#include "shards/generated/messages_generated.h"
#include "storage/generated/record_generated.h"

namespace basalt::shards {

namespace {

constexpr size_t kMessagesPerPollMax = 256;
// Of an error's text; the log of the core that carried the call out has it whole.
constexpr size_t kDetailBytesMax = 512;

uint64_t handle_of(const void* memory) { return reinterpret_cast<uintptr_t>(memory); }
template <class T>
T* from_handle(uint64_t handle) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(handle));
}

// Written by the core's thread only: no locked instruction.
void count(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

std::string_view text_of(const flatbuffers::Vector<uint8_t>* bytes) {
  if (bytes == nullptr) return {};
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

}  // namespace

// A message before it is a flatbuffer.
struct CoreShards::Outgoing {
  fb::Kind kind;
  fb::Ticket ticket{0, 0};
  unsigned shard = 0;
  storage::KeyView key = {};
  uint64_t handle = 0;
  uint8_t action = 0;
  int16_t code = -1;
  std::string_view detail = {};
  uint32_t failed_index = 0;
  uint64_t seq = 0;
};

// A call of this core that another core carries out.
struct CoreShards::Slot {
  Completion* request = nullptr;
  fb::Kind kind = fb::Kind::Get;
  uint32_t index = 0;
  uint32_t generation = 0;
};

// A record on its way to the core that asked, which frees it.
struct CoreShards::SentRecord : Pooled {
  explicit SentRecord(storage::Record&& sent) : record(std::move(sent)) {}
  storage::Record record;
};

// A call of another core that this core carries out.
struct CoreShards::Served {
  CoreShards* self;
  unsigned from;
  fb::Ticket ticket;
};

struct CoreShards::ServedApply final : ApplyRequest, Pooled {
  Served served;
  ServedApply(Served s, const ApplyRequest& asked)
      : ApplyRequest(asked.preconditions, asked.mutations, asked.body, asked.reclaiming),
        served(s) {
    fn = [](Completion& completion) {
      std::unique_ptr<ServedApply> call(static_cast<ServedApply*>(&completion));
      Outgoing done{.kind = fb::Kind::Done,
                    .ticket = call->served.ticket,
                    .failed_index = call->failed_index};
      if (call->result) {
        done.seq = call->result->seq;
      } else {
        done.code = static_cast<int16_t>(call->result.error().code);
        done.detail = call->result.error().detail;
      }
      call->served.self->push_or_keep(call->served.from, done);
    };
  }
};

struct CoreShards::ServedScan final : ScanRequest {
  Served served;
  ServedScan(Served s, const storage::ScanOptions& asked) : ScanRequest(asked), served(s) {
    fn = [](Completion& completion) {
      std::unique_ptr<ServedScan> call(static_cast<ServedScan*>(&completion));
      Outgoing done{.kind = fb::Kind::Done, .ticket = call->served.ticket};
      if (call->result) {
        done.handle = handle_of(new storage::ScanPage(std::move(*call->result)));
      } else {
        done.code = static_cast<int16_t>(call->result.error().code);
        done.detail = call->result.error().detail;
      }
      call->served.self->push_or_keep(call->served.from, done);
    };
  }
};

struct CoreShards::ServedSeal final : SealRequest {
  Served served;
  ServedSeal(Served s, SealRequest::Action a, uint64_t asked_space)
      : SealRequest(a, asked_space), served(s) {
    fn = [](Completion& completion) {
      std::unique_ptr<ServedSeal> call(static_cast<ServedSeal*>(&completion));
      Outgoing done{.kind = fb::Kind::Done, .ticket = call->served.ticket};
      if (!call->result) {
        done.code = static_cast<int16_t>(call->result.error().code);
        done.detail = call->result.error().detail;
      }
      call->served.self->push_or_keep(call->served.from, done);
    };
  }
};

// A change of control state under way on the home core.
struct CoreShards::HomeChange final : ApplyRequest {
  CoreShards* self;
  ControlRequest* local_request = nullptr;  // asked by this core; else:
  Served served{};
  unsigned cores_left = 0;
  HomeChange(CoreShards* home, const ControlRequest& asked)
      : ApplyRequest(asked.preconditions, asked.mutations, {}), self(home) {
    fn = [](Completion& completion) {
      auto& change = static_cast<HomeChange&>(completion);
      change.self->change_applied(change);
    };
  }
};

CoreShards::CoreShards(const Parts& parts)
    : parts_(parts),
      shard_count_(parts.engine.shard_count()),
      hash_seed_(parts.engine.hash_seed()),
      slots_(parts.fabric.core_count() > 1 ? parts.calls_in_flight_max : 0),
      backlog_(parts.fabric.core_count()) {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    slots_[i].index = i;
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()) - 1 - i);
  }
}

CoreShards::~CoreShards() { BASALT_CHECK(calls_in_flight_ == 0); }

// SipHash-2-4 keyed with the directory's seed and the space: placement is part of the on-disk
// format, and a client cannot choose keys that all fall into one shard.
unsigned CoreShards::shard_of(uint64_t space, std::string_view object_key) const {
  unsigned char key[crypto_shorthash_KEYBYTES];
  static_assert(sizeof key == 16);
  std::memcpy(key, &hash_seed_, 8);
  std::memcpy(key + 8, &space, 8);
  uint64_t hash = 0;
  crypto_shorthash(reinterpret_cast<unsigned char*>(&hash),
                   reinterpret_cast<const unsigned char*>(object_key.data()), object_key.size(),
                   key);
  return static_cast<unsigned>(hash & (shard_count_ - 1));
}

template <class Request>
bool CoreShards::start_local(unsigned shard, Request& request) {
  if (owner(shard) != parts_.core) return false;
  count(stats_.local_calls);
  storage::MetaShard& host = local(shard);
  if constexpr (std::is_same_v<Request, ApplyRequest>) {
    host.apply(request);
  } else if constexpr (std::is_same_v<Request, GetRequest>) {
    host.get(request);
  } else if constexpr (std::is_same_v<Request, ScanRequest>) {
    host.scan(request);
  } else {
    host.seal(request);
  }
  return true;
}

CoreShards::Slot* CoreShards::take_slot() {
  if (free_slots_.empty()) return nullptr;
  Slot& slot = slots_[free_slots_.back()];
  free_slots_.pop_back();
  ++calls_in_flight_;
  return &slot;
}

template <class Request>
void CoreShards::send_call(unsigned core, Request& request, const Outgoing& message) {
  Slot* slot = take_slot();
  if (slot != nullptr) {
    slot->request = &request;
    slot->kind = message.kind;
    Outgoing ticketed = message;
    ticketed.ticket = fb::Ticket(slot->index, slot->generation);
    if (try_push(core, ticketed)) {
      count(stats_.remote_calls);
      return;
    }
    ++slot->generation;
    free_slots_.push_back(slot->index);
    --calls_in_flight_;
  }
  count(stats_.refused_full);
  request.result = fail(Code::kBusy, "the queue to another core is full");
  parts_.run_queue.post(request);
}

void CoreShards::start(unsigned shard, ApplyRequest& request) {
  if (start_local(shard, request)) return;
  send_call(owner(shard), request,
            {.kind = fb::Kind::Apply, .shard = shard, .handle = handle_of(&request)});
}

void CoreShards::start(unsigned shard, GetRequest& request) {
  if (start_local(shard, request)) return;
  send_call(owner(shard), request, {.kind = fb::Kind::Get, .shard = shard, .key = request.key});
}

void CoreShards::start(unsigned shard, ScanRequest& request) {
  if (start_local(shard, request)) return;
  send_call(owner(shard), request,
            {.kind = fb::Kind::Scan, .shard = shard, .handle = handle_of(&request.options)});
}

void CoreShards::start_on_core(unsigned core, ScanRequest& request) {
  if (core != parts_.core) {
    send_call(core, request, {.kind = fb::Kind::ScanAll, .handle = handle_of(&request.options)});
    return;
  }
  count(stats_.local_calls);
  request.result = parts_.core_engine.scan(request.options);
  parts_.run_queue.post(request);
}

void CoreShards::start(unsigned shard, SealRequest& request) {
  if (start_local(shard, request)) return;
  send_call(owner(shard), request,
            {.kind = fb::Kind::Seal,
             .shard = shard,
             .key = {.space = request.space},
             .action = static_cast<uint8_t>(request.action)});
}

void CoreShards::start(ControlRequest& request) {
  if (parts_.core != 0) {
    send_call(0, request, {.kind = fb::Kind::Change, .handle = handle_of(&request)});
    return;
  }
  auto* change = new HomeChange(this, request);
  change->local_request = &request;
  begin_change(*change);
}

std::optional<Result<storage::Record>> CoreShards::get_now(unsigned shard,
                                                           const storage::KeyView& key) {
  if (owner(shard) != parts_.core) return std::nullopt;
  count(stats_.local_calls);
  return local(shard).get_now(key);
}

// --- Control state, home core.

void CoreShards::begin_change(HomeChange& change) { local(0).apply(change); }

void CoreShards::change_applied(HomeChange& change) {
  if (!change.result) {
    change.cores_left = 1;
    change_seen(change);
    return;
  }
  change.cores_left = core_count();
  for (unsigned core = 1; core < core_count(); ++core) {
    // The mutations stay in place: whoever asked for the change waits for every core.
    push_or_keep(
        core, {.kind = fb::Kind::Changed, .handle = handle_of(&change), .seq = change.result->seq});
  }
  apply_change(change.mutations, change.result->seq);
  change_seen(change);
}

void CoreShards::change_seen(HomeChange& change) {
  if (--change.cores_left > 0) return;
  std::unique_ptr<HomeChange> finished(&change);
  if (change.local_request != nullptr) {
    change.local_request->result = std::move(change.result);
    change.local_request->failed_index = change.failed_index;
    parts_.run_queue.post(*change.local_request);
    return;
  }
  Outgoing done{
      .kind = fb::Kind::Done, .ticket = change.served.ticket, .failed_index = change.failed_index};
  if (change.result) {
    done.seq = change.result->seq;
  } else {
    done.code = static_cast<int16_t>(change.result.error().code);
    done.detail = change.result.error().detail;
  }
  push_or_keep(change.served.from, done);
}

void CoreShards::apply_change(Bytes mutations, uint64_t seq) {
  const auto* batch = flatbuffers::GetRoot<storage::fb::MutationBatch>(mutations.data());
  for (const auto* mutation : *batch->mutations()) {
    const auto table = static_cast<storage::Table>(mutation->table());
    if (table != storage::Table::kBucket && table != storage::Table::kIdentity) continue;
    std::optional<Bytes> meta;
    if (mutation->action() == storage::fb::Action::Put) {
      const auto* bytes = mutation->record()->meta();
      meta = bytes != nullptr ? Bytes(bytes->data(), bytes->size()) : Bytes();
    }
    parts_.listener.on_change(table, text_of(mutation->name()), meta, seq);
  }
}

// --- Messages.

Bytes CoreShards::encode(const Outgoing& message) {
  builder_.Clear();
  flatbuffers::Offset<flatbuffers::Vector<uint8_t>> name, detail;
  if (!message.key.name.empty()) {
    name = builder_.CreateVector(reinterpret_cast<const uint8_t*>(message.key.name.data()),
                                 message.key.name.size());
  }
  if (!message.detail.empty()) {
    const std::string_view text = message.detail.substr(0, kDetailBytesMax);
    detail = builder_.CreateVector(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  }
  fb::MessageBuilder out(builder_);
  out.add_kind(message.kind);
  out.add_ticket(&message.ticket);
  out.add_shard(static_cast<uint16_t>(message.shard));
  out.add_table(static_cast<uint8_t>(message.key.table));
  out.add_space(message.key.space);
  if (!name.IsNull()) out.add_name(name);
  out.add_handle(message.handle);
  out.add_action(message.action);
  out.add_code(message.code);
  if (!detail.IsNull()) out.add_detail(detail);
  out.add_failed_index(message.failed_index);
  out.add_seq(message.seq);
  builder_.Finish(out.Finish());
  return {builder_.GetBufferPointer(), builder_.GetSize()};
}

bool CoreShards::try_push(unsigned core, const Outgoing& message) {
  if (!backlog_[core].empty()) return false;  // keeps the order
  if (!parts_.fabric.ring(parts_.core, core).push(encode(message))) return false;
  parts_.fabric.ring_doorbell(core);
  return true;
}

void CoreShards::push_or_keep(unsigned core, const Outgoing& message) {
  if (try_push(core, message)) return;
  const Bytes frame = encode(message);
  backlog_[core].emplace_back(frame.begin(), frame.end());
  count(stats_.answers_kept);
}

size_t CoreShards::backlog_frames() const {
  size_t frames = 0;
  for (const auto& of_core : backlog_) frames += of_core.size();
  return frames;
}

bool CoreShards::flush_backlog() {
  bool any = false;
  for (unsigned core = 0; core < core_count(); ++core) {
    auto& frames = backlog_[core];
    bool pushed = false;
    while (!frames.empty() && parts_.fabric.ring(parts_.core, core).push(frames.front())) {
      frames.pop_front();
      pushed = true;
    }
    if (pushed) parts_.fabric.ring_doorbell(core);
    any |= pushed;
  }
  return any;
}

void CoreShards::receive(unsigned from, Bytes frame) {
  const auto& message = *flatbuffers::GetRoot<fb::Message>(frame.data());
  const Served served{this, from, *message.ticket()};
  const unsigned shard = message.shard();
  switch (message.kind()) {
    case fb::Kind::Get: {
      // A look-up never waits: it is answered from here, its key read where it lies in the ring.
      count(stats_.served_calls);
      auto result = local(shard).get_now({.table = static_cast<storage::Table>(message.table()),
                                          .space = message.space(),
                                          .name = text_of(message.name())});
      Outgoing done{.kind = fb::Kind::Done, .ticket = served.ticket};
      if (result) {
        done.handle = handle_of(new SentRecord(std::move(*result)));
      } else {
        done.code = static_cast<int16_t>(result.error().code);
        done.detail = result.error().detail;
      }
      push_or_keep(from, done);
      return;
    }
    case fb::Kind::Apply: {
      auto* call = new ServedApply(served, *from_handle<ApplyRequest>(message.handle()));
      count(stats_.served_calls);
      local(shard).apply(*call);
      return;
    }
    case fb::Kind::Scan: {
      auto* call = new ServedScan(served, *from_handle<storage::ScanOptions>(message.handle()));
      count(stats_.served_calls);
      local(shard).scan(*call);
      return;
    }
    case fb::Kind::ScanAll: {
      auto* call = new ServedScan(served, *from_handle<storage::ScanOptions>(message.handle()));
      count(stats_.served_calls);
      call->result = parts_.core_engine.scan(call->options);
      parts_.run_queue.post(*call);
      return;
    }
    case fb::Kind::Seal: {
      auto* call = new ServedSeal(served, static_cast<SealRequest::Action>(message.action()),
                                  message.space());
      count(stats_.served_calls);
      local(shard).seal(*call);
      return;
    }
    case fb::Kind::Change: {
      auto* change = new HomeChange(this, *from_handle<ControlRequest>(message.handle()));
      change->served = served;
      begin_change(*change);
      return;
    }
    case fb::Kind::Changed: {
      const auto* change = from_handle<HomeChange>(message.handle());
      apply_change(change->mutations, message.seq());
      push_or_keep(from, {.kind = fb::Kind::Seen, .handle = message.handle()});
      return;
    }
    case fb::Kind::Seen: {
      change_seen(*from_handle<HomeChange>(message.handle()));
      return;
    }
    case fb::Kind::Done: {
      receive_done(message);
      return;
    }
  }
}

void CoreShards::receive_done(const fb::Message& message) {
  const fb::Ticket& ticket = *message.ticket();
  BASALT_CHECK(ticket.slot() < slots_.size());
  Slot& slot = slots_[ticket.slot()];
  if (slot.request == nullptr || slot.generation != ticket.generation())
    return;  // nobody waits for it any more
  Completion& completion = *std::exchange(slot.request, nullptr);
  ++slot.generation;
  free_slots_.push_back(slot.index);
  --calls_in_flight_;
  const bool good = message.code() < 0;
  auto error = [&] {
    return fail(static_cast<Code>(message.code()), std::string(text_of(message.detail())));
  };
  switch (slot.kind) {
    case fb::Kind::Get: {
      auto& request = static_cast<GetRequest&>(completion);
      if (good) {
        std::unique_ptr<SentRecord> sent(from_handle<SentRecord>(message.handle()));
        request.result = std::move(sent->record);
      } else {
        request.result = error();
      }
      break;
    }
    case fb::Kind::Scan:
    case fb::Kind::ScanAll: {
      auto& request = static_cast<ScanRequest&>(completion);
      if (good) {
        std::unique_ptr<storage::ScanPage> page(from_handle<storage::ScanPage>(message.handle()));
        request.result = std::move(*page);
      } else {
        request.result = error();
      }
      break;
    }
    case fb::Kind::Apply: {
      auto& request = static_cast<ApplyRequest&>(completion);
      request.failed_index = message.failed_index();
      if (good) {
        request.result = storage::Applied{message.seq()};
      } else {
        request.result = error();
      }
      break;
    }
    case fb::Kind::Change: {
      auto& request = static_cast<ControlRequest&>(completion);
      request.failed_index = message.failed_index();
      if (good) {
        request.result = storage::Applied{message.seq()};
      } else {
        request.result = error();
      }
      break;
    }
    default: {
      auto& request = static_cast<SealRequest&>(completion);
      if (good) {
        request.result = Status();
      } else {
        request.result = error();
      }
      break;
    }
  }
  parts_.run_queue.post(completion);
}

bool CoreShards::poll() {
  bool any = flush_backlog();
  for (unsigned from = 0; from < core_count(); ++from) {
    if (from == parts_.core) continue;
    any |= parts_.fabric.ring(from, parts_.core).drain(kMessagesPerPollMax, [&](Bytes frame) {
      receive(from, frame);
    }) > 0;
  }
  return any;
}

bool CoreShards::prepare_sleep() {
  for (const auto& frames : backlog_) {
    if (!frames.empty()) return false;  // the peer is busy; it does not ring when it makes room
  }
  return parts_.fabric.prepare_sleep(parts_.core);
}

// --- Start.

Task<Status> load_control(Client& client, ControlListener& listener) {
  for (const storage::Table table : {storage::Table::kIdentity, storage::Table::kBucket}) {
    std::string after;
    bool more = true;
    while (more) {
      auto call = client.scan(
          0, {.table = table, .space = storage::kControlSpace, .after = after, .limit = 1000});
      CO_TRY(page, call);
      for (const auto& entry : page.entries) {
        listener.on_change(table, entry.name, entry.record.meta, entry.record.seq);
      }
      more = page.more && !page.entries.empty();
      if (more) after = std::string(page.entries.back().name);
    }
  }
  co_return Status();
}

}  // namespace basalt::shards
