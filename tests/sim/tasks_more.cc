// What clients do besides: pages of listings, of one shard and of all; sealing and purging of
// spaces; changes of control state.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "storage/mutation_builder.h"
#include "tests/sim/world.h"

namespace basalt::sim {
namespace {

using storage::ScanPage;
using storage::ScanRequest;
using storage::SealRequest;
using storage::Table;

// One page of one shard; judged where it is made.
class Scan final : public Task {
 public:
  explicit Scan(World& world) : Task(world), request_(*this) {
    Chance& chance = world.chance();
    const auto from = world.pick_place();
    storage::ScanOptions& options = request_.options;
    options.table = from.key.table;
    options.space = from.key.space;
    options.limit = static_cast<uint32_t>(chance.between(1, 40));
    if (chance.happens(0.5)) after_ = from.key.name;
    options.after = after_;
    if (chance.happens(0.2)) prefix_ = from.key.name.substr(0, 1);
    options.prefix = prefix_;
    if (chance.happens(0.2)) options.delimiter = "/";
    world.judge().expect_page(after_.data());
    world.awake(world.pick_core()).client->start(from.shard, request_);
  }
  ~Scan() override { world_.judge().forget_page(after_.data()); }
  void cancel() override {}

 private:
  struct Request : ScanRequest {
    explicit Request(Scan& owner) : ScanRequest(storage::ScanOptions{}), scan(owner) {
      fn = [](Completion& completion) {
        static_cast<Request&>(static_cast<ScanRequest&>(completion)).scan.came();
      };
    }
    Scan& scan;
  };
  void came() {
    done_ = true;
    if (!request_.result && refused_by_ring(request_.result.error())) return;
    world_.judge().came(name_of_scan(request_.options), answer_of(request_.result));
  }

  std::string after_, prefix_;
  Request request_;
};

// A page over all shards, merged. Each core's part is judged where it is made; of the whole: it is
// in order, and has every record that nobody touched meanwhile.
class ListAll final : public Task {
 public:
  explicit ListAll(World& world) : Task(world) {
    Chance& chance = world.chance();
    const auto from = world.pick_place();
    options_.table = from.key.table;
    options_.space = from.key.space;
    options_.limit = static_cast<uint32_t>(chance.between(1, 60));
    if (chance.happens(0.3)) after_ = from.key.name;
    options_.after = after_;
    if (chance.happens(0.2)) prefix_ = from.key.name.substr(0, 1);
    options_.prefix = prefix_;
    if (chance.happens(0.2)) options_.delimiter = "/";
    before_ = in_range();
    run(*this, *world.awake(world.pick_core()).client);
  }
  void cancel() override {}

 private:
  static Detached run(ListAll& self, shards::Client& client) {
    auto page = co_await shards::scan_all(client, self.options_);
    self.came(page);
  }

  std::map<std::string, uint64_t> in_range() const {
    std::map<std::string, uint64_t> names;
    for (unsigned shard = 0; shard < world_.shards(); ++shard) {
      for (const auto& [key, value] : world_.model().acknowledged(shard)) {
        if (key.table == options_.table && key.space == options_.space &&
            key.name.starts_with(prefix_) && key.name > after_ &&
            !world_.model().busy(world_.core_of(shard), shard, key)) {
          names[key.name] = value->id;
        }
      }
    }
    return names;
  }

  void came(const Result<ScanPage>& page) {
    done_ = true;
    world_.trace().event("listed", page ? 0 : 1 + static_cast<uint64_t>(page.error().code));
    if (!page) return world_.judge_refusal("list", page.error());
    std::map<std::string, uint64_t> shown;
    std::string_view last;
    for (const auto& entry : page->entries) {
      if (entry.name <= last && !last.empty()) return world_.fail("a merged page is out of order");
      last = entry.name;
      uint64_t id = 0;
      if (entry.record.meta.size() >= 8) std::memcpy(&id, entry.record.meta.data(), 8);
      shown[std::string(entry.name)] = id;
    }
    if (page->entries.size() > options_.limit) return world_.fail("a merged page is too long");
    if (page->more && page->entries.empty()) {
      return world_.fail("an empty merged page says that there is more");
    }
    if (!options_.delimiter.empty()) return;
    const auto now = in_range();
    for (const auto& [name, id] : before_) {
      if (page->more && name > last) break;
      const auto still = now.find(name);
      if (still == now.end() || still->second != id) continue;
      const auto found = shown.find(name);
      if (found == shown.end() || found->second != id) {
        return world_.fail(fmt::format("a merged page shows value {} of '{}' instead of {}",
                                       found == shown.end() ? 0 : found->second, name.substr(0, 40),
                                       id));
      }
    }
  }

  storage::ScanOptions options_;
  std::string after_, prefix_;
  std::map<std::string, uint64_t> before_;
};

// Seals a space of a shard; when it is sealed, purges it or takes it back. One at a time for each.
class SealSpace final : public Task {
 public:
  explicit SealSpace(World& world) : Task(world), request_(*this) {
    Chance& chance = world.chance();
    const auto shard = static_cast<unsigned>(chance.below(world.shards()));
    const uint64_t space = world.spaces()[chance.below(world.spaces().size())];
    place_ = {shard, space};
    if (!world.sealing().insert(place_).second) {
      done_ = true;
      return;
    }
    request_.space = space;
    request_.action = SealRequest::Action::kSeal;
    if (world.sealed().contains(place_)) {
      request_.action = SealRequest::Action::kUnseal;
      // What was accepted before the seal and what a purge erases would be hard to tell apart.
      if (chance.happens(0.5) && !world.model().busy_space(world.core_of(shard), shard, space)) {
        request_.action = SealRequest::Action::kPurge;
      }
    }
    world.awake(world.pick_core()).client->start(shard, request_);
  }
  void cancel() override {}

 private:
  struct Request : SealRequest {
    explicit Request(SealSpace& owner) : SealRequest(Action::kSeal, 0), task(owner) {
      fn = [](Completion& completion) {
        static_cast<Request&>(static_cast<SealRequest&>(completion)).task.came();
      };
    }
    SealSpace& task;
  };
  void came() {
    done_ = true;
    world_.sealing().erase(place_);
    const Status& result = request_.result;
    if (!result && refused_by_ring(result.error())) return;
    world_.judge().came(name_of_seal(place_.first, request_), answer_of(result));
  }

  std::pair<unsigned, uint64_t> place_;
  Request request_;
};

// A change of control state: when it is answered, every core knows it.
class Control final : public Task {
 public:
  explicit Control(World& world) : Task(world), batch_(world) {
    Chance& chance = world.chance();
    for (uint64_t count = chance.between(1, 2); count > 0; --count) {
      const Key key{Table::kIdentity, storage::kControlSpace,
                    fmt::format("account/{}", chance.below(6))};
      if (std::ranges::any_of(batch_.changes, [&](const auto& c) { return c.first == key; })) {
        continue;
      }
      const ValuePtr value = chance.happens(0.3) ? nullptr : ValuePtr(world.make_value());
      batch_.changes.emplace_back(key, value);
      if (value == nullptr) {
        builder_.erase(key.view());
      } else {
        builder_.put(key.view(), {.tag = value->tag, .meta = as_bytes(value->meta)});
      }
    }
    if (chance.happens(world.mix().conditional)) {
      batch_.conditions.push_back(
          {.kind = static_cast<storage::Precondition::Kind>(chance.below(4)),
           .key = batch_.changes.front().first,
           .tag = std::to_string(chance.below(4))});
    }
    preconditions_ = batch_.preconditions();
    request_.emplace(preconditions_, builder_.finish());
    request_->task = this;
    request_->fn = [](Completion& completion) {
      static_cast<Request&>(static_cast<shards::ControlRequest&>(completion)).task->came();
    };
    batch_.sent(request_->mutations);
    world.awake(world.pick_core()).client->start(*request_);
  }
  void cancel() override {}

 private:
  struct Request : shards::ControlRequest {
    using ControlRequest::ControlRequest;
    Control* task = nullptr;
  };
  void came() {
    done_ = true;
    const bool good = batch_.returned(request_->result, request_->failed_index);
    world_.trace().event("changed", good);
    if (!good) return;
    for (unsigned core = 0; core < world_.core_count(); ++core) {
      const auto& rows = world_.core(core).mirror->rows();
      for (const auto& [key, value] : batch_.changes) {
        const auto row = rows.find(key);
        const uint64_t id = value == nullptr ? 0 : value->id;
        if (row == rows.end() || row->second.seq < request_->result->seq ||
            (row->second.seq == request_->result->seq && row->second.value != id)) {
          return world_.fail(fmt::format(
              "a control change was answered, and core {} does not know '{}'", core, key.name));
        }
      }
    }
  }

  Batch batch_;
  storage::MutationBuilder builder_;
  std::vector<storage::Precondition> preconditions_;
  std::optional<Request> request_;
};

}  // namespace

std::unique_ptr<Task> make_scan(World& world) { return std::make_unique<Scan>(world); }
std::unique_ptr<Task> make_list(World& world) { return std::make_unique<ListAll>(world); }
std::unique_ptr<Task> make_seal(World& world) { return std::make_unique<SealSpace>(world); }
std::unique_ptr<Task> make_control(World& world) { return std::make_unique<Control>(world); }

}  // namespace basalt::sim
