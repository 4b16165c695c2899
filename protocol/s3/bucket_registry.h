// BucketRegistry: one core's copy of all buckets, fed by committed changes of the kBucket table.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace basalt::s3 {

struct Bucket {
  std::string name;
  uint64_t space =
      0;  // key space of this incarnation; a bucket of the same name made later has another
  std::string owner_id;  // account id
  int64_t created_ms = 0;
  std::string region;
  bool object_lock = false;
  std::string ownership;
  uint64_t seq = 0;  // of the row, for kSeqEquals
};

class BucketRegistry {
 public:
  Status apply_change(std::string_view name, std::optional<Bytes> meta, uint64_t seq);
  std::shared_ptr<const Bucket> find(std::string_view name) const;  // nullptr if there is none
  const std::map<std::string, std::shared_ptr<const Bucket>, std::less<>>& all() const {
    return buckets_;
  }  // by name

 private:
  std::map<std::string, std::shared_ptr<const Bucket>, std::less<>> buckets_;
};

// A row's meta; kCorrupt if it cannot be read.
Result<Bucket> decode_bucket(std::string_view name, Bytes meta, uint64_t seq);
std::string encode_bucket(const Bucket& bucket);

}  // namespace basalt::s3
