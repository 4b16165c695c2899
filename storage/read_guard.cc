#include "storage/read_guard.h"

#include "base/block_pool.h"
#include "base/check.h"

namespace basalt::storage {

class GuardEpochs::Guard final : public ReadGuard, public Pooled {
 public:
  Guard(Core& core, Node& node) : core_(core), node_(node) {}
  ~Guard() override {
    if (--node_.count > 0 || &node_ != &core_.nodes.front()) return;
    while (core_.nodes.size() > 1 && core_.nodes.front().count == 0) core_.nodes.pop_front();
    const Node& front = core_.nodes.front();  // the last one stays for the next guard
    core_.oldest.store(front.count == 0 ? UINT64_MAX : front.epoch, std::memory_order_seq_cst);
  }

 private:
  Core& core_;
  Node& node_;
};

GuardEpochs::GuardEpochs(unsigned cores) {
  for (unsigned i = 0; i < cores; ++i) cores_.push_back(std::make_unique<Core>());
}

GuardEpochs::~GuardEpochs() = default;

std::unique_ptr<ReadGuard> GuardEpochs::take(unsigned core_number) {
  BASALT_CHECK(core_number < cores_.size());
  Core& core = *cores_[core_number];
  uint64_t epoch = epoch_.load(std::memory_order_seq_cst);
  if (core.nodes.empty() || (core.nodes.size() == 1 && core.nodes.back().count == 0)) {
    core.nodes.resize(1);
    core.nodes.back() = {epoch, 0};
    core.oldest.store(epoch, std::memory_order_seq_cst);
  } else if (core.nodes.back().epoch != epoch) {
    core.nodes.push_back({epoch, 0});
  }
  Node& node = core.nodes.back();
  ++node.count;
  return std::make_unique<Guard>(core, node);
}

uint64_t GuardEpochs::advance() { return epoch_.fetch_add(1, std::memory_order_seq_cst); }

bool GuardEpochs::passed(uint64_t stamp) const {
  for (const auto& core : cores_) {
    if (core->oldest.load(std::memory_order_seq_cst) <= stamp) return false;
  }
  return true;
}

}  // namespace basalt::storage
