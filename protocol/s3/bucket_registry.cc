#include "protocol/s3/bucket_registry.h"

#include <flatbuffers/flatbuffers.h>

#include "protocol/s3/generated/object_generated.h"
#include "protocol/s3/object_meta.h"

namespace basalt::s3 {

Result<Bucket> decode_bucket(std::string_view name, Bytes meta, uint64_t seq) {
  auto row = MetaView<fb::Bucket>::open(meta);
  if (!row) return fail(Code::kCorrupt, "bucket row " + std::string(name) + " is malformed");
  Bucket bucket;
  bucket.name = name;
  const fb::Bucket& fields = **row;
  bucket.space = fields.space();
  bucket.owner_id = text_of(fields.owner());
  bucket.created_ms = fields.created_ms();
  bucket.region = text_of(fields.region());
  bucket.object_lock = fields.object_lock();
  bucket.ownership = text_of(fields.ownership());
  bucket.seq = seq;
  // Space 0 is the control space: a row that names it would open the control tables to object
  // requests.
  if (bucket.space == 0)
    return fail(Code::kCorrupt, "bucket row " + std::string(name) + " has space 0");
  return bucket;
}

Status BucketRegistry::apply_change(std::string_view name, std::optional<Bytes> meta,
                                    uint64_t seq) {
  if (!meta) {
    const auto found = buckets_.find(name);
    if (found != buckets_.end()) buckets_.erase(found);
    return {};
  }
  BASALT_TRY(bucket, decode_bucket(name, *meta, seq));
  buckets_.insert_or_assign(std::string(name), std::make_shared<const Bucket>(std::move(bucket)));
  return {};
}

std::shared_ptr<const Bucket> BucketRegistry::find(std::string_view name) const {
  const auto found = buckets_.find(name);
  return found == buckets_.end() ? nullptr : found->second;
}

std::string encode_bucket(const Bucket& bucket) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto owner = builder.CreateString(bucket.owner_id);
  const auto region = builder.CreateString(bucket.region);
  const auto ownership = builder.CreateString(bucket.ownership);
  fb::BucketBuilder row(builder);
  row.add_space(bucket.space);
  row.add_owner(owner);
  row.add_created_ms(bucket.created_ms);
  row.add_region(region);
  row.add_object_lock(bucket.object_lock);
  row.add_ownership(ownership);
  builder.Finish(row.Finish());
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

}  // namespace basalt::s3
