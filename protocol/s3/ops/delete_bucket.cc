// DeleteBucket: DELETE /bucket. API reference: "DeleteBucket".
//
// Objects lie on every shard, so an empty bucket is something that all shards must agree on: each
// seals the bucket's space (it takes no new keys from then on), and only when all are sealed is the
// bucket gone. One that is not empty takes it all back. Unfinished multipart uploads do not keep a
// bucket; they are purged.

#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "base/log.h"
#include "protocol/s3/ops/handlers.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {
namespace {

using SealAction = storage::SealRequest::Action;

// Spaces that a DeleteBucket of any core works on now. Two at once could undo each other's seals,
// and a write would slip into a space that is being erased. Shared between cores on purpose: it is
// touched twice in a DeleteBucket and by nothing else, and the lock is never held over a wait.
class RemovalClaim {
 public:
  explicit RemovalClaim(uint64_t space) : space_(space) {
    const std::lock_guard lock(mutex());
    held_ = spaces().insert(space).second;
  }
  ~RemovalClaim() {
    if (!held_) return;
    const std::lock_guard lock(mutex());
    spaces().erase(space_);
  }
  RemovalClaim(const RemovalClaim&) = delete;
  RemovalClaim& operator=(const RemovalClaim&) = delete;
  bool held() const { return held_; }

 private:
  static std::mutex& mutex() {
    static std::mutex instance;
    return instance;
  }
  static std::unordered_set<uint64_t>& spaces() {
    static std::unordered_set<uint64_t> instance;
    return instance;
  }
  const uint64_t space_;
  bool held_ = false;
};

// Does it on all shards at once. The first failure, but kNotEmpty before any other: it is what the
// client must hear.
Task<Status> on_all_shards(shards::Client& client, SealAction action, uint64_t space) {
  std::vector<std::unique_ptr<Call<storage::SealRequest>>> calls;
  calls.reserve(client.shard_count());
  for (unsigned shard = 0; shard < client.shard_count(); ++shard) {
    calls.emplace_back(new Call<storage::SealRequest>(client.seal(shard, action, space)));
  }
  Status outcome;
  for (auto& call :
       calls) {  // every one is awaited: a frame does not die while its calls are in flight
    Status done = co_await *call;
    if (done) continue;
    if (outcome || done.error().code == Code::kNotEmpty) outcome = std::move(done);
  }
  co_return outcome;
}

Task<Result<bool>> holds_objects(shards::Client& client, uint64_t space) {
  auto page = co_await shards::scan_all(
      client, {.table = storage::Table::kCurrent, .space = space, .limit = 1});
  if (!page) co_return std::unexpected(std::move(page.error()));
  co_return !page->entries.empty();
}

Task<void> take_back(Op& op, uint64_t space) {
  const Status unsealed = co_await on_all_shards(op.shards(), SealAction::kUnseal, space);
  if (!unsealed) {
    log_error("bucket stays sealed", {{"request_id", op.request_id},
                                      {"bucket", op.bucket->name},
                                      {"detail", unsealed.error().detail}});
  }
}

}  // namespace

Task<S3Result<Reply>> delete_bucket(Op& op) {
  const uint64_t space = op.bucket->space;
  const RemovalClaim claim(space);
  if (!claim.held()) co_return s3_fail(S3Code::kOperationAborted);

  // Looking first keeps a bucket that is plainly in use from being sealed, even for a moment, under
  // its writers.
  auto occupied = co_await holds_objects(op.shards(), space);
  if (!occupied) co_return std::unexpected(std::move(occupied.error()));
  if (*occupied) co_return s3_fail(S3Code::kBucketNotEmpty);

  Status sealed = co_await on_all_shards(op.shards(), SealAction::kSeal, space);
  if (!sealed) {
    co_await take_back(op, space);
    if (sealed.error().code == Code::kNotEmpty) co_return s3_fail(S3Code::kBucketNotEmpty);
    co_return std::unexpected(std::move(sealed.error()));
  }
  Status purged = co_await on_all_shards(op.shards(), SealAction::kPurge, space);
  if (!purged) {
    co_await take_back(op, space);
    co_return std::unexpected(std::move(purged.error()));
  }

  const storage::KeyView key{storage::Table::kBucket, storage::kControlSpace, op.bucket->name};
  storage::MutationBuilder mutations;
  mutations.erase(key);
  const storage::Precondition same[] = {
      {.kind = storage::Precondition::Kind::kSeqEquals, .key = key, .seq = op.bucket->seq}};
  auto changed = co_await op.shards().change(same, mutations.finish());
  if (!changed) {
    const auto now = op.services.buckets.find(op.bucket->name);
    const bool gone = changed.error().code == Code::kNotFound ||
                      (changed.error().code == Code::kPreconditionFailed &&
                       (now == nullptr || now->space != space));
    // Removed by an earlier request, and perhaps made anew in another space: this space stays
    // closed.
    if (gone) co_return s3_fail(S3Code::kNoSuchBucket);
    co_await take_back(op, space);
    if (changed.error().code == Code::kPreconditionFailed)
      co_return s3_fail(S3Code::kOperationAborted);
    co_return std::unexpected(std::move(changed.error()));
  }
  co_return Reply::empty(204);
}

}  // namespace basalt::s3
