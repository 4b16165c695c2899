// World: what is there after a recovery, and at the end, against the model.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "storage/files_local.h"
#include "tests/sim/world.h"

namespace basalt::sim {

using storage::BlobKind;
using storage::BlobRef;
using storage::Table;

namespace {

// Spares, and what is kept back for deletes and collection on a full disk (one a core and a common
// one), and the ones that up to three cores have ready.
constexpr size_t kSegmentsKeptMax = storage::kSpareSegmentsMax + 4 + 3;

}  // namespace

std::vector<std::map<Key, uint64_t>> World::find_all() {
  std::vector<std::map<Key, uint64_t>> found(shard_count_);
  blobs_.clear();
  for (unsigned number = 0; number < shard_count_; ++number) {
    RunQueue& run_queue = core(core_of(number)).run_queue;
    for (size_t table = 0; table < storage::kTableCount; ++table) {
      std::vector<uint64_t> spaces = spaces_;
      spaces.push_back(storage::kControlSpace);
      for (const uint64_t space : spaces) {
        std::string after;
        for (bool more = true; more && !failed();) {
          struct Request : storage::ScanRequest {
            using ScanRequest::ScanRequest;
            bool came = false;
          } request(
              {.table = static_cast<Table>(table), .space = space, .after = after, .limit = 500});
          request.fn = [](Completion& completion) {
            static_cast<Request&>(static_cast<storage::ScanRequest&>(completion)).came = true;
          };
          core(core_of(number)).engine->shard(number).scan(request);  // not judged: not settled
          while (!request.came) run_queue.run();
          if (!request.result) {
            fail("a listing fails: " + request.result.error().detail);
            return found;
          }
          more = request.result->more;
          for (const auto& entry : request.result->entries) {
            const Key key{static_cast<Table>(table), space, std::string(entry.name)};
            uint64_t id = 0;
            if (entry.record.meta.size() >= 8) std::memcpy(&id, entry.record.meta.data(), 8);
            const ValuePtr value = value_of(id);
            if (value == nullptr || value->size != entry.record.size ||
                value->tag != entry.record.tag || value->meta != as_text(entry.record.meta)) {
              fail("a listed record is none that was written: " + key.name.substr(0, 40));
              return found;
            }
            found[number][key] = id;
            if (in_file(entry.record.body)) blobs_.push_back(entry.record.body);
            for (const BlobRef& blob : entry.record.blobs) {
              if (in_file(blob)) blobs_.push_back(blob);
            }
            after = key.name;
          }
        }
      }
    }
  }
  return found;
}

void World::read_content(unsigned number, const Key& key, const storage::RecordView& record,
                         const Value& value) {
  std::string content(as_text(record.inline_body));
  std::vector<BlobRef> blobs;
  if (in_file(record.body)) blobs.push_back(record.body);
  for (const BlobRef& blob : record.blobs) blobs.push_back(blob);
  Core& core = *cores_[number];
  for (const BlobRef& blob : blobs) {
    for (uint64_t at = 0; at < blob.length;) {
      struct Request : storage::ReadBlob {
        using ReadBlob::ReadBlob;
        bool came = false;
      } request(blob, at, static_cast<uint32_t>(std::min<uint64_t>(blob.length - at, 300'000)));
      request.fn = [](Completion& completion) {
        static_cast<Request&>(static_cast<storage::ReadBlob&>(completion)).came = true;
      };
      core.engine->blobs().read(request);
      while (!request.came) {
        core.io->poll();
        core.run_queue.run();
      }
      if (!request.result) {
        if (request.result.error().code == Code::kCorrupt && is_damaged(blob)) {
          if (must_be_noticed(blob)) trace_.add("misdirected writes noticed", 1);
          return;
        }
        return fail(fmt::format("'{}' cannot be read: {}", key.name.substr(0, 40),
                                request.result.error().detail));
      }
      content += as_text(request.result->data);
      at += request.length;
    }
    if (must_be_noticed(blob)) {
      return fail(
          fmt::format("'{}' is read though a write was misdirected", key.name.substr(0, 40)));
    }
  }
  std::string expected;
  for (const Piece& piece : value.pieces) expected += pattern(piece);
  if (content != expected) fail(fmt::format("'{}' has wrong content", key.name.substr(0, 40)));
}

// Every answer of a shard came back, and every core knows the control state.
void World::judge_mail() {
  if (failed()) return;
  if (const std::string call = judge_.left(); !call.empty()) {
    return fail("an answer was lost: " + call);
  }
  std::map<Key, uint64_t> expected;
  for (const auto& [key, value] : model_.acknowledged(0)) {
    if (key.table == Table::kIdentity) expected[key] = value->id;
  }
  for (const auto& core : cores_) {
    if (core->mirror->loading) continue;
    std::map<Key, uint64_t> known;
    for (const auto& [key, row] : core->mirror->rows()) {
      if (row.value != 0) known[key] = row.value;
    }
    if (known != expected) return fail("a core's control state is not what was committed");
  }
}

void World::verify() {
  const auto found = find_all();
  if (failed()) return;
  if (std::string wrong = model_.settle(found); !wrong.empty()) return fail(wrong);
  for (unsigned number = 0; number < shard_count_ && !failed(); ++number) {
    for (const auto& [key, value] : model_.acknowledged(number)) {
      const auto record = core(core_of(number)).engine->shard(number).get_now(key.view());
      if (!record)
        return fail("what a listing shows a look-up does not find: " + record.error().detail);
      read_content(static_cast<unsigned>(chance_.below(cores_.size())), key, record->view(),
                   *value);
      if (failed()) return;
    }
  }
}

// What is on the disk against what the records name. Empty: it is the same.
std::string World::compare_accounts() {
  find_all();
  uint64_t live = 0;
  std::set<uint32_t> own, log, bulk;
  for (const BlobRef& blob : blobs_) {
    const auto kind = static_cast<BlobKind>(blob.kind);
    (kind == BlobKind::kFile ? own : kind == BlobKind::kLog ? log : bulk).insert(blob.file);
    if (kind != BlobKind::kFile) live += blob.length;
  }
  const storage::SpaceUse use = engine_->space_use();
  if (use.segment_live_bytes != live) {
    return fmt::format("live bytes of the segments are {}, counted {}", live,
                       use.segment_live_bytes);
  }
  if (use.own_files != own.size() || disk_->files("blob").size() != own.size()) {
    return fmt::format("{} own files are referred to, {} counted, {} on the disk", own.size(),
                       use.own_files, disk_->files("blob").size());
  }
  if (disk_->files("log").size() > log.size() + kSegmentsKeptMax ||
      disk_->files("bulk").size() > bulk.size() + kSegmentsKeptMax) {
    return fmt::format("{} log and {} bulk segments are referred to, {} and {} are on the disk",
                       log.size(), bulk.size(), disk_->files("log").size(),
                       disk_->files("bulk").size());
  }
  return {};
}

// After a clean stop, a start, and a while in which nothing was asked: what is on the disk is what
// the records name. (The segments of the life before are kept until the first checkpoints, and
// collection may be at work.)
void World::verify_accounts() {
  verify();
  if (failed()) return;
  end_by_stop();
  if (failed()) return;
  open(false);
  if (failed()) return;
  attach();
  std::string wrong = "not compared";
  for (size_t round = 0; round < 200 && !wrong.empty() && !failed(); ++round) {
    for (size_t turns = 0; turns < 100; ++turns) {
      clock_.advance_ns(20'000'000);
      turn();
    }
    wrong = compare_accounts();
  }
  if (failed()) return;
  if (!wrong.empty()) return fail(wrong);
  for (const uint64_t space : spaces_) {
    uint64_t objects = 0, bytes = 0;
    for (unsigned number = 0; number < shard_count_; ++number) {
      for (const auto& [key, value] : model_.acknowledged(number)) {
        if (key.table != Table::kCurrent || key.space != space) continue;
        ++objects;
        bytes += value->size;
      }
    }
    if (engine_->space_objects(space) != objects || engine_->space_bytes(space) != bytes) {
      return fail(fmt::format("space {} holds {} objects of {} bytes, counted {} of {}", space,
                              objects, bytes, engine_->space_objects(space),
                              engine_->space_bytes(space)));
    }
  }
  end_by_stop();  // collection may have a record on its way
}

}  // namespace basalt::sim
