// MetaShard: ordered, linearizable metadata of one shard. Local engine: log + overlay + LMDB. A
// memory model in tests.
//
// apply() is atomic and durable when it completes with success (P1, P2); get() and scan() show only
// durable state (P3). Preconditions are evaluated against durable and pending state together, so
// that of two writers one wins (P4).
//
// Thread: all calls on the core that hosts the shard; completions are posted to that core's run
// queue. A request and every view in it stays valid until its completion ran.
//
// Errors: kPreconditionFailed (failed_index tells which; kNotFound if it wanted a record and there
// was none), kSealed, kNoSpace, kReadOnly (an earlier write failed), kIo, kCorrupt, kBusy (queue
// bound), kInvalid (malformed mutation batch: our bug or a hostile peer), kCancelled (shutdown).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/completion.h"
#include "base/result.h"
#include "storage/record.h"
#include "storage/types.h"

namespace basalt::storage {

struct Applied {
  uint64_t seq = 0;  // the sequence given to every record of the batch
};

struct ApplyRequest : Completion {
  std::span<const Precondition> preconditions;
  Bytes mutations;          // a finished fb::MutationBatch
  Bytes body;               // at most kInlineBodyBytesMax; owned by the mutation with has_body
  bool reclaiming = false;  // only erases or shrinks: allowed below the low-water mark

  Result<Applied> result;
  uint32_t failed_index = 0;  // with kPreconditionFailed / kNotFound

  ApplyRequest(std::span<const Precondition> p, Bytes m, Bytes b, bool r = false)
      : preconditions(p), mutations(m), body(b), reclaiming(r) {}
};

struct GetRequest : Completion {
  KeyView key;

  Result<Record> result;  // kNotFound if there is none

  explicit GetRequest(const KeyView& k) : key(k) {}
};

// What of a record's metadata a page keeps, for who wants a thousand records' few fields: writes at
// most kSelectedBytesMax bytes to `out` and returns how many. Runs on the shard's core. Of metadata
// that it finds damaged it keeps nothing.
using SelectMeta = size_t (*)(Bytes meta, uint8_t* out);
constexpr size_t kSelectedBytesMax = 512;

struct ScanOptions {
  Table table = Table::kCurrent;
  uint64_t space = 0;
  std::string_view prefix;  // only names that start with it
  std::string_view after;   // only names greater than it (empty: from the start)
  std::string_view
      delimiter;  // not empty: names that contain it after the prefix are rolled up, by seek
  uint32_t limit = 1000;  // entries at most, 1 to 10,000
  // Not null: a record in the page has its seq, size and tag, what this keeps as its meta, and
  // nothing else. The whole record is checked all the same.
  SelectMeta select = nullptr;
};

// Up to `limit` entries in byte order of the name; fewer, with `more` set, when the page has grown
// to some 8 MiB. With a delimiter a rolled-up entry has common_prefix = true, its name is prefix +
// ... + delimiter and its record is empty; a common prefix is reported if it is greater than
// `after` (a common prefix equal to `after`, or of which `after` is a member, was reported by an
// earlier page: names that start with such a common prefix are skipped only when `after` itself
// ends with the delimiter and starts that prefix; the caller passes after = the last entry it was
// given).
struct ScanPage {
  struct Entry {
    std::string_view name;
    bool common_prefix = false;
    RecordView record;
  };
  std::vector<Entry> entries;
  bool more = false;                               // exact: there are names after the last entry
  std::vector<std::unique_ptr<uint8_t[]>> memory;  // what the views point into
};

struct ScanRequest : Completion {
  ScanOptions options;

  Result<ScanPage> result;

  explicit ScanRequest(const ScanOptions& o) : options(o) {}
};

// Removal of a key space (DeleteBucket). seal: refuse new records from now on (kSealed), after
// confirming that the kCurrent and kVersion tables hold none, pending ones included; else kNotEmpty
// and nothing changed. unseal: takes it back. purge: erases what is left in kUpload and kPart
// (blobs released), durable when it completes.
struct SealRequest : Completion {
  enum class Action : uint8_t { kSeal, kUnseal, kPurge } action;
  uint64_t space;

  Status result;

  SealRequest(Action a, uint64_t s) : action(a), space(s) {}
};

class MetaShard {
 public:
  virtual ~MetaShard() = default;
  virtual void apply(ApplyRequest& request) = 0;
  virtual void get(GetRequest& request) = 0;
  virtual void scan(ScanRequest& request) = 0;
  virtual void seal(SealRequest& request) = 0;

  // Fast path: a look-up that needs no I/O and no queue answers at once. The default goes through
  // nothing. Returns kNotFound, kCorrupt or the record.
  virtual Result<Record> get_now(const KeyView& key) = 0;
};

}  // namespace basalt::storage
