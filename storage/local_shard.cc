#include "storage/local_shard.h"

#include <algorithm>

#include "base/check.h"
#include "storage/generated/record_generated.h"

namespace basalt::storage {

struct LocalShard::Pending : Append {
  LocalShard* owner = nullptr;
  ApplyRequest* request = nullptr;
  Completion* waiting = nullptr;  // refused for what this one does: answered once it is durable
};

// Erases a space's uploads and parts, one batch after the other.
struct LocalShard::Purge {
  LocalShard* owner = nullptr;
  SealRequest* request = nullptr;
  MutationBuilder builder;
  struct Apply : ApplyRequest {
    Purge* purge = nullptr;
    Apply() : ApplyRequest({}, {}, {}, true) {}
  } apply;
  bool applying = false;
};

namespace {

bool is_object_table(Table table) { return table == Table::kCurrent || table == Table::kVersion; }
bool is_upload_table(Table table) { return table == Table::kUpload || table == Table::kPart; }

bool valid_key(const KeyView& key) {
  return static_cast<size_t>(key.table) < kTableCount && key.space >> 63 == 0 &&
         !key.name.empty() && key.name.size() <= kNameBytesMax;
}

}  // namespace

LocalShard::LocalShard(ShardState& state, Files& files, Lane& lane, RunQueue& run_queue)
    : state_(state), files_(files), lane_(lane), run_queue_(run_queue) {}

LocalShard::~LocalShard() { BASALT_CHECK(idle()); }

void LocalShard::stop() {
  stopping_ = true;
  drive();
  advance_waiting_purges();
}

Result<Record> LocalShard::get_now(const KeyView& key) { return state_.get(key); }

void LocalShard::get(GetRequest& request) {
  request.result = state_.get(request.key);
  run_queue_.post(request);
}

void LocalShard::scan(ScanRequest& request) {
  request.result = state_.scan(request.options);
  run_queue_.post(request);
}

Status LocalShard::admit(const fb::MutationBatch& batch) {
  if (!files_.healthy()) return fail(Code::kReadOnly, files_.health_text());
  if (sealed_.empty()) return {};
  for (const fb::Mutation* mutation : *batch.mutations()) {
    const KeyView key = key_of(*mutation);
    if (mutation->action() == fb::Action::Put &&
        (is_object_table(key.table) || is_upload_table(key.table)) && sealed_.contains(key.space)) {
      return fail(Code::kSealed);
    }
  }
  return {};
}

Status LocalShard::check_preconditions(ApplyRequest& request, Pending*& cause) {
  for (size_t i = 0; i < request.preconditions.size(); ++i) {
    const Precondition& condition = request.preconditions[i];
    request.failed_index = static_cast<uint32_t>(i);
    if (!valid_key(condition.key)) return fail(Code::kInvalid, "precondition on an impossible key");
    bool exists = false;
    std::string_view tag;
    uint64_t seq = 0;
    cause = nullptr;
    if (const auto pending = pending_keys_.find(FullKey(condition.key).view());
        pending != pending_keys_.end()) {
      // Failed, and its completion waits in the run queue: what follows must not rely on it.
      if (const Status& fate = pending->second.last->result; !fate) return fate;
      cause = pending->second.last;
      exists = pending->second.exists;
      tag = pending->second.tag;
      seq = pending->second.seq;
    } else {
      BASALT_TRY(record, state_.peek(condition.key));
      exists = record.has_value();
      if (exists) {
        tag = record->tag;
        seq = record->seq;
      }
    }
    bool holds = false;
    switch (condition.kind) {
      case Precondition::Kind::kAbsent:
        holds = !exists;
        break;
      case Precondition::Kind::kTagDiffers:
        holds = !exists || tag != condition.tag;
        break;
      case Precondition::Kind::kExists:
      case Precondition::Kind::kTagEquals:
      case Precondition::Kind::kSeqEquals:
        if (!exists) return fail(Code::kNotFound);
        holds = condition.kind == Precondition::Kind::kExists ||
                (condition.kind == Precondition::Kind::kTagEquals ? tag == condition.tag
                                                                  : seq == condition.seq);
        break;
    }
    if (!holds) return fail(Code::kPreconditionFailed);
  }
  request.failed_index = 0;
  return {};
}

void LocalShard::refuse(ApplyRequest& request, Error error) {
  request.result = std::unexpected(std::move(error));
  run_queue_.post(request);
}

namespace {

// What a batch takes of the disk, about: its record, and its part of the index.
uint64_t room_wanted(const ApplyRequest& request) {
  constexpr uint64_t kIndexBytes = 512;
  return request.mutations.size() + request.body.size() + kIndexBytes;
}

}  // namespace

void LocalShard::apply(ApplyRequest& request) {
  if (request.reclaiming) return start(request);
  drive();  // what waits longer goes first
  if (stopping_ || !files_.healthy()) return start(request);
  const uint64_t held = request.mutations.size() + request.body.size();
  if (gated_.empty()) {
    RoomTicket ticket(room_wanted(request), held);
    if (files_.take_room(ticket) == Room::kYes) return start(request);
  }
  gated_.emplace_back(request, room_wanted(request), held);
  drive_gated(std::prev(gated_.end()));
}

// Each has its place in the queue for room, and its own time.
bool LocalShard::drive_gated(std::list<Gated>::iterator from) {
  bool did = false;
  for (auto it = from; it != gated_.end();) {
    // A shard that stops or is read-only says so itself.
    const Room room = stopping_ || !files_.healthy() ? Room::kYes : files_.take_room(it->ticket);
    if (room == Room::kWait) {
      ++it;
      continue;
    }
    ApplyRequest& request = it->request;
    it = gated_.erase(it);
    did = true;
    switch (room) {
      case Room::kYes:
      case Room::kWait:
        start(request);
        break;
      case Room::kNone:
        refuse(request, {Code::kNoSpace, "the disk is full: below the low-water mark"});
        break;
      case Room::kCrowd:
        refuse(request, {Code::kBusy, "too many writes wait for space"});
        break;
      case Room::kEnded:
        refuse(request, {Code::kBusy, "the server stops"});
        break;
    }
  }
  return did;
}

void LocalShard::start(ApplyRequest& request) {
  const auto refuse = [&](Error error) { this->refuse(request, std::move(error)); };
  if (stopping_) return refuse({Code::kCancelled, "stopping"});
  if (pending_applies_ >= kPendingAppliesMax ||
      files_.platform().happens(Chaos::Point::kShardQueueFull))
    return refuse({Code::kBusy, "too many writes under way"});
  const AlignedBytes bytes(request.mutations);
  const auto batch = verify_batch(bytes.view(), request.body.size());
  if (!batch) return refuse(batch.error());
  if (auto status = admit(**batch); !status) return refuse(status.error());
  Pending* cause = nullptr;
  if (auto status = check_preconditions(request, cause); !status) {
    if (cause == nullptr) return refuse(status.error());
    // The answer tells of a write that no reader can see yet, and that a crash could undo: it waits
    // for that write.
    if (waiting_applies_ >= kPendingAppliesMax)
      return refuse({Code::kBusy, "too many writes under way"});
    ++waiting_applies_;
    request.result = std::unexpected(std::move(status.error()));
    request.next = std::exchange(cause->waiting, &request);
    return;
  }

  std::unique_ptr<Pending> owned;
  if (free_.empty()) {
    owned = std::make_unique<Pending>();
  } else {
    owned = std::move(free_.back());
    free_.pop_back();
  }
  Pending& pending = *owned.release();  // finish() takes it back
  pending.fn = &LocalShard::appended;
  pending.owner = this;
  pending.request = &request;
  pending.shard = static_cast<uint16_t>(state_.index().shard());
  pending.mutations = request.mutations;
  pending.body = request.body;
  pending.lsn = 0;
  pending.waiting = nullptr;
  pending.body_ref = {};
  pending.result = {};
  ++pending_applies_;
  lane_.append(pending);
  // Refused: it changes nothing that a later batch could rely on.
  if (pending.lsn == 0) return;

  for (const fb::Mutation* mutation : *(*batch)->mutations()) {
    const KeyView key = key_of(*mutation);
    const FullKey full_key(key);
    PendingKey& state = pending_key(full_key.view());
    state.last = &pending;
    state.exists = mutation->action() == fb::Action::Put;
    state.seq = pending.lsn;
    state.tag.assign(state.exists ? tag_of(*mutation->record()) : std::string_view());
    if (!state.exists) continue;
    if (is_object_table(key.table)) ++pending_space(key.space).objects;
    if (is_upload_table(key.table)) ++pending_space(key.space).uploads;
  }
}

LocalShard::PendingKey& LocalShard::pending_key(std::string_view full_key) {
  const auto found = pending_keys_.find(full_key);
  if (found != pending_keys_.end()) return found->second;
  if (spare_keys_.empty()) return pending_keys_.emplace(full_key, PendingKey()).first->second;
  auto node = std::move(spare_keys_.back());
  spare_keys_.pop_back();
  node.key().assign(full_key);
  return pending_keys_.insert(std::move(node)).position->second;
}

LocalShard::PendingSpace& LocalShard::pending_space(uint64_t space) {
  const auto found = pending_spaces_.find(space);
  if (found != pending_spaces_.end()) return found->second;
  if (spare_spaces_.empty()) return pending_spaces_[space];
  auto node = std::move(spare_spaces_.back());
  spare_spaces_.pop_back();
  node.key() = space;
  node.mapped() = {};
  return pending_spaces_.insert(std::move(node)).position->second;
}

void LocalShard::appended(Completion& completion) {
  auto& pending = static_cast<Pending&>(static_cast<Append&>(completion));
  pending.owner->finish(pending);
}

void LocalShard::finish(Pending& pending) {
  ApplyRequest& request = *pending.request;
  const AlignedBytes bytes(request.mutations);
  // Checked by apply(), and the caller keeps the bytes unchanged until it is answered.
  const auto& batch = *flatbuffers::GetRoot<fb::MutationBatch>(bytes.view().data());
  for (const fb::Mutation* mutation : *batch.mutations()) {
    if (pending.lsn == 0) break;  // was not registered
    const KeyView key = key_of(*mutation);
    if (const auto at = pending_keys_.find(FullKey(key).view());
        at != pending_keys_.end() && at->second.last == &pending) {
      auto node = pending_keys_.extract(at);
      if (spare_keys_.size() < kSparesMax) spare_keys_.push_back(std::move(node));
    }
    if (mutation->action() != fb::Action::Put) continue;
    const bool object = is_object_table(key.table);
    if (!object && !is_upload_table(key.table)) continue;
    const auto space = pending_spaces_.find(key.space);
    BASALT_CHECK(space != pending_spaces_.end());
    --(object ? space->second.objects : space->second.uploads);
    if (space->second.objects == 0 && space->second.uploads == 0) {
      auto node = pending_spaces_.extract(space);
      if (spare_spaces_.size() < kSparesMax) spare_spaces_.push_back(std::move(node));
    }
  }
  if (pending.result) {
    state_.insert(batch, pending.lsn, request.body, pending.body_ref);
    request.result = Applied{pending.lsn};
  } else {
    request.result = std::unexpected(pending.result.error());
  }
  run_queue_.post(request);
  while (pending.waiting != nullptr) {
    auto& refused =
        static_cast<ApplyRequest&>(*std::exchange(pending.waiting, pending.waiting->next));
    if (!pending.result) refused.result = std::unexpected(pending.result.error());
    run_queue_.post(refused);
    --waiting_applies_;
  }
  --pending_applies_;
  free_.emplace_back(&pending);
  if (!purges_.empty()) advance_waiting_purges();
}

// --- Sealing

void LocalShard::seal(SealRequest& request) {
  request.result = {};
  switch (request.action) {
    case SealRequest::Action::kSeal:
      request.result = do_seal(request.space);
      break;
    case SealRequest::Action::kUnseal:
      sealed_.erase(request.space);
      break;
    case SealRequest::Action::kPurge: {
      auto& purge = *purges_.emplace_back(std::make_unique<Purge>());
      purge.owner = this;
      purge.request = &request;
      purge.apply.purge = &purge;
      purge.apply.fn = &LocalShard::purge_applied;
      advance(purge);
      return;
    }
  }
  run_queue_.post(request);
}

Status LocalShard::do_seal(uint64_t space) {
  if (stopping_) return fail(Code::kCancelled, "stopping");
  if (const auto pending = pending_spaces_.find(space);
      pending != pending_spaces_.end() && pending->second.objects != 0) {
    return fail(Code::kNotEmpty);
  }
  for (const Table table : {Table::kCurrent, Table::kVersion}) {
    BASALT_TRY(page, state_.scan({.table = table, .space = space, .limit = 1}));
    if (!page.entries.empty()) return fail(Code::kNotEmpty);
  }
  sealed_.insert(space);
  return {};
}

// One step: finds what is left and erases it, or completes the request. Puts that were accepted
// before the seal are waited for: their completion calls again.
void LocalShard::advance(Purge& purge) {
  const auto done = [&](Status result) {
    purge.request->result = std::move(result);
    run_queue_.post(*purge.request);
    std::erase_if(purges_, [&](const auto& owned) { return owned.get() == &purge; });
  };
  if (stopping_) return done(fail(Code::kCancelled, "stopping"));
  const uint64_t space = purge.request->space;
  if (const auto pending = pending_spaces_.find(space);
      pending != pending_spaces_.end() && pending->second.uploads != 0) {
    return;
  }
  purge.builder.clear();
  size_t name_bytes = 0;
  for (const Table table : {Table::kUpload, Table::kPart}) {
    const auto page = state_.scan({.table = table, .space = space, .limit = kPurgeBatchRecords});
    if (!page) return done(std::unexpected(page.error()));
    for (const auto& entry : page->entries) {
      if (name_bytes > kPurgeBatchNameBytes) break;
      name_bytes += entry.name.size();
      purge.builder.erase({table, space, entry.name});
    }
  }
  if (purge.builder.count() == 0) return done({});
  purge.applying = true;
  purge.apply.mutations = purge.builder.finish();
  apply(purge.apply);
}

void LocalShard::purge_applied(Completion& completion) {
  Purge& purge = *static_cast<Purge::Apply&>(static_cast<ApplyRequest&>(completion)).purge;
  LocalShard& self = *purge.owner;
  purge.applying = false;
  if (!purge.apply.result) {
    purge.request->result = std::unexpected(purge.apply.result.error());
    self.run_queue_.post(*purge.request);
    std::erase_if(self.purges_, [&](const auto& owned) { return owned.get() == &purge; });
    return;
  }
  self.advance(purge);
}

void LocalShard::advance_waiting_purges() {
  // advance() may remove its purge from the list.
  std::vector<Purge*> waiting;
  for (const auto& purge : purges_) {
    if (!purge->applying) waiting.push_back(purge.get());
  }
  for (Purge* purge : waiting) advance(*purge);
}

}  // namespace basalt::storage
