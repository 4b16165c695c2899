#include "storage/read_guard.h"

#include "base/check.h"

namespace basalt::storage {

class GuardEpochs::Guard final : public ReadGuard {
 public:
  Guard(Core& core, Node& node) : core_(core), node_(node) {}
  ~Guard() override {
    if (--node_.count > 0 || &node_ != &core_.nodes.front()) return;
    while (!core_.nodes.empty() && core_.nodes.front().count == 0) core_.nodes.pop_front();
    core_.oldest.store(core_.nodes.empty() ? UINT64_MAX : core_.nodes.front().epoch,
                       std::memory_order_seq_cst);
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
  if (core.nodes.empty()) {
    core.nodes.push_back({epoch, 0});
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
