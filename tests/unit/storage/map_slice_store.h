// A SliceStore over std::map that refuses keys LMDB would refuse.
#pragma once

#include <map>
#include <string>

#include "base/check.h"
#include "storage/key_slices.h"

namespace basalt::storage::test {

class MapSliceStore final : public SliceStore {
 public:
  Result<Bytes> get(Bytes key) override {
    const auto at = map.find(std::string(as_text(key)));
    if (at == map.end()) return fail(Code::kNotFound);
    return as_bytes(at->second);
  }
  Status put(Bytes key, Bytes value) override {
    BASALT_CHECK(key.size() <= 511);
    map[std::string(as_text(key))] = std::string(as_text(value));
    return {};
  }
  Status erase(Bytes key) override {
    if (map.erase(std::string(as_text(key))) == 0) return fail(Code::kNotFound);
    return {};
  }
  Result<uint64_t> new_layer() override { return kLayerBit | next_layer++; }
  Result<bool> seek(Bytes key) override {
    at_ = map.lower_bound(std::string(as_text(key)));
    return at_ != map.end();
  }
  Result<bool> next() override { return ++at_ != map.end(); }
  Bytes key() const override { return as_bytes(at_->first); }
  Bytes value() const override { return as_bytes(at_->second); }

  std::map<std::string, std::string> map;
  uint64_t next_layer = 1;

 private:
  std::map<std::string, std::string>::iterator at_;
};

}  // namespace basalt::storage::test
