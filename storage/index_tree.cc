#include "storage/index_tree.h"

#include <fmt/format.h>
#include <lmdb.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>

#include "base/check.h"
#include "base/crc32c.h"

namespace basalt::storage {

namespace {

using lmdb::compare;
using lmdb::kPageHeaderBytes;
using lmdb::load;

// Nothing but a disk takes so long to enter a leaf; a wrong guess costs kLeavesAhead system calls.
constexpr auto kColdLeafTime = std::chrono::microseconds(30);
// A listing of 1,000 keys takes some ten leaves of each of eight shards.
constexpr unsigned kLeavesAhead = 16;

constexpr uint64_t kViewBytesMin = 64u << 20;
// A value of ours is at most some 520 KiB (a batch's limit); this is only a guard.
constexpr uint64_t kValueBytesMax = 16u << 20;
// The size for which both meta pages are where they say; one of them may be damaged.
template <class IsHead>
uint32_t page_size(IsHead&& is_head) {
  uint32_t one = lmdb::kPageBytesMin;
  for (uint32_t size = lmdb::kPageBytesMin; size <= lmdb::kPageBytesMax; size *= 2) {
    const bool first = is_head(0u, size), second = is_head(1u, size);
    if (first && second) return size;
    if (first || second) one = size;
  }
  return one;
}

constexpr size_t kNodesMax = lmdb::kPageBytesMax / (lmdb::kNodeHeaderBytes + 2);

}  // namespace

TreeHead TreeHead::parse(const uint8_t* at) {
  TreeHead tree;
  tree.flags = load<uint16_t>(at + 4);
  tree.depth = load<uint16_t>(at + 6);
  tree.branch_pages = load<uint64_t>(at + 8);
  tree.leaf_pages = load<uint64_t>(at + 16);
  tree.overflow_pages = load<uint64_t>(at + 24);
  tree.entries = load<uint64_t>(at + 32);
  tree.root = load<uint64_t>(at + 40);
  return tree;
}

// --- IndexMap

Result<std::unique_ptr<IndexMap>> IndexMap::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_open(errno, path);
  return std::unique_ptr<IndexMap>(new IndexMap(std::move(fd)));
}

IndexMap::~IndexMap() {
  for (const auto& view : views_) ::munmap(const_cast<uint8_t*>(view->base), view->bytes);
}

Result<const uint8_t*> IndexMap::reach(uint64_t bytes) {
  const View* view = view_.load(std::memory_order_acquire);
  if (view != nullptr && view->bytes >= bytes &&
      file_bytes_.load(std::memory_order_relaxed) >= bytes) {
    return view->base;
  }
  const std::lock_guard lock(mutex_);
  struct stat info{};
  if (::fstat(fd_.get(), &info) != 0) return fail_errno(errno, "stat index");
  if (static_cast<uint64_t>(info.st_size) < bytes) {
    return fail(Code::kCorrupt, "the index file is shorter than its head says");
  }
  file_bytes_.store(static_cast<uint64_t>(info.st_size), std::memory_order_relaxed);
  view = view_.load(std::memory_order_relaxed);
  if (view != nullptr && view->bytes >= bytes) return view->base;
  // Behind the end of the file is room to grow: address space only.
  uint64_t wanted = std::max(kViewBytesMin, 2 * std::bit_ceil(bytes));
  void* memory = ::mmap(nullptr, wanted, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
  if (memory == MAP_FAILED) {
    wanted = std::bit_ceil(bytes);
    memory = ::mmap(nullptr, wanted, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
  }
  if (memory == MAP_FAILED) return fail_errno(errno, "map index");
  // As with MDB_NORDAHEAD: look-ups are random.
  [[maybe_unused]] const int advised = ::madvise(memory, wanted, MADV_RANDOM);
  views_.push_back(std::make_unique<View>(View{static_cast<const uint8_t*>(memory), wanted}));
  view_.store(views_.back().get(), std::memory_order_release);
  return views_.back()->base;
}

// What meta page `i` says, if it is one, of a file with pages of that size.
std::optional<TreeState> IndexMap::head(unsigned i, uint32_t page_bytes) {
  const auto base = reach(uint64_t{page_bytes} * 2);
  if (!base) return std::nullopt;
  const uint8_t* page = *base + uint64_t{i} * page_bytes;
  const uint8_t* at = page + kPageHeaderBytes;
  if (load<uint64_t>(page) != i || load<uint16_t>(page + lmdb::kPageFlagsAt) != lmdb::kMetaPage ||
      load<uint32_t>(at) != lmdb::kMagic || load<uint32_t>(at + 4) != lmdb::kDataVersion ||
      load<uint32_t>(at + 24) != page_bytes) {
    return std::nullopt;
  }
  return TreeState{.base = nullptr,
                   .page_bytes = page_bytes,
                   .last_page = load<uint64_t>(at + 120),
                   .transaction = load<uint64_t>(at + 128),
                   .free = TreeHead::parse(at + 24),
                   .main = TreeHead::parse(at + 24 + lmdb::kTreeBytes)};
}

Status IndexMap::complete(TreeState& state) {
  const auto root_good = [&](const TreeHead& tree) {
    return tree.root == lmdb::kNoPage || (tree.root > 1 && tree.root <= state.last_page);
  };
  if (state.last_page < 1 || state.last_page > (uint64_t{1} << 48) || !root_good(state.free) ||
      !root_good(state.main)) {
    return fail(Code::kCorrupt, "a meta page is damaged");
  }
  BASALT_TRY(all, reach((state.last_page + 1) * state.page_bytes));
  state.base = all;
  return {};
}

Status IndexMap::check_heads() {
  const uint32_t page_bytes =
      page_size([this](unsigned i, uint32_t size) { return head(i, size).has_value(); });
  std::array<uint64_t, 2> transactions{};
  for (unsigned i = 0; i < 2; ++i) {
    auto state = head(i, page_bytes);
    if (!state || (state->free.flags & MDB_FIXEDMAP) != 0 ||
        (state->transaction != 0 && state->transaction % 2 != i)) {
      return fail(Code::kCorrupt, "a meta page is damaged");
    }
    BASALT_CHECK_OK(complete(*state));
    transactions[i] = state->transaction;
  }
  const auto [low, high] = std::minmax(transactions[0], transactions[1]);
  if (high - low > 1) return fail(Code::kCorrupt, "the meta pages do not follow each other");
  return {};
}

Result<TreeState> IndexMap::state(std::optional<uint64_t> id) {
  BASALT_CHECK_OK(reach(2 * uint64_t{lmdb::kPageBytesMin}));
  const uint32_t page_bytes =
      page_size([this](unsigned i, uint32_t size) { return head(i, size).has_value(); });
  std::optional<TreeState> chosen;
  for (unsigned i = 0; i < 2; ++i) {
    if (id && i != *id % 2) continue;
    const auto state = head(i, page_bytes);
    if (!state) continue;
    if (id && state->transaction > *id) {
      return fail(Code::kNotFound, "the meta page of the transaction was replaced");
    }
    if ((id && state->transaction != *id) ||
        (state->transaction % 2 != i && state->transaction != 0)) {
      continue;
    }
    if (!chosen || state->transaction > chosen->transaction) chosen = state;
  }
  if (!chosen) {
    return fail(Code::kCorrupt,
                id ? "the meta page of the transaction is another one" : "no usable meta page");
  }
  BASALT_CHECK_OK(complete(*chosen));
  return *chosen;
}

// --- TreeCursor

void TreeCursor::reset(const TreeState& state, const TreeHead& tree, PageSet* whole) {
  state_ = &state;
  tree_ = &tree;
  whole_ = whole;
  integers_ = (tree.flags & lmdb::kIntegerKey) != 0;
  trees_ = tree_ == &state.main;
  depth_ = 0;
  walked_ = ahead_ = nullptr;
  cold_ = false;
  asked_to_ = 0;
}

// Takes a node apart, if it lies in its page.
inline bool TreeCursor::node(const Level& level, unsigned index, Node& out) const {
  const uint32_t page_bytes = state_->page_bytes;
  const uint32_t offset = load<uint16_t>(level.page + kPageHeaderBytes + 2 * size_t{index});
  if (offset < level.upper || offset + lmdb::kNodeHeaderBytes > page_bytes) {
    return damaged(level.number, "an entry lies outside of the page");
  }
  const uint8_t* at = level.page + offset;
  const uint32_t low = load<uint16_t>(at), high = load<uint16_t>(at + 2);
  const uint32_t key_bytes = load<uint16_t>(at + 6);
  out.at = at;
  out.flags = load<uint16_t>(at + 4);
  uint64_t end = uint64_t{offset} + lmdb::kNodeHeaderBytes + key_bytes;
  if (level.leaf) {
    out.value_bytes = low | high << 16;
    end += (out.flags & lmdb::kBigData) != 0 ? 8 : out.value_bytes;
    const bool known = (out.flags & ~lmdb::kBigData) == (trees_ ? lmdb::kSubTree : 0);
    if (!known || key_bytes == 0) return damaged(level.number, "an entry is of an unknown kind");
  } else {
    out.child = low | uint64_t{high} << 16 | uint64_t{out.flags} << 32;
  }
  if (end > page_bytes) return damaged(level.number, "an entry reaches behind the page");
  out.key = {at + lmdb::kNodeHeaderBytes, key_bytes};
  return true;
}

bool TreeCursor::take(const Level& level, unsigned index, Row& row) const {
  Node found;
  if (!node(level, index, found)) return false;
  row.key = found.key;
  const uint8_t* value = found.key.data() + found.key.size();
  if ((found.flags & lmdb::kBigData) != 0) {
    const auto first = load<uint64_t>(value);
    const uint64_t pages = lmdb::overflow_pages(found.value_bytes, state_->page_bytes);
    if (found.value_bytes > kValueBytesMax || first < 2 || first > state_->last_page ||
        pages > state_->last_page - first + 1) {
      return damaged(level.number, "a large value is outside of the file");
    }
    const uint8_t* page = state_->base + first * state_->page_bytes;
    if (load<uint64_t>(page) != first ||
        load<uint16_t>(page + lmdb::kPageFlagsAt) != lmdb::kOverflow ||
        load<uint32_t>(page + lmdb::kPageLowerAt) != pages) {
      return damaged(first, "the page of a large value is another one");
    }
    value = page + kPageHeaderBytes;
  }
  row.value = {value, found.value_bytes};
  return true;
}

// All of a page: its nodes tile it, its keys rise.
bool TreeCursor::whole(const Level& level) const {
  std::array<uint32_t, kNodesMax + 1> places;
  Bytes before;
  if (level.count > kNodesMax) return damaged(level.number, "the page has too many entries");
  for (unsigned i = 0; i < level.count; ++i) {
    Node one;
    if (!node(level, i, one)) return false;
    uint32_t bytes = static_cast<uint32_t>(lmdb::kNodeHeaderBytes + one.key.size());
    if (level.leaf) bytes += (one.flags & lmdb::kBigData) != 0 ? 8 : one.value_bytes;
    const auto offset = static_cast<uint32_t>(one.at - level.page);
    places[i] = offset << 16 | ((bytes + 1) & ~1u);
    if (!level.leaf) {
      if (one.child < 2 || one.child > state_->last_page) {
        return damaged(level.number, "an entry leads outside of the file");
      }
      if (i == 0) continue;  // its key is never looked at, and may be empty
    }
    if (one.key.empty() || (!before.empty() && compare(before, one.key, integers_) >= 0)) {
      return damaged(level.number, "keys are out of order");
    }
    before = one.key;
  }
  std::sort(places.begin(), places.begin() + level.count);
  uint32_t next = level.upper;
  for (unsigned i = 0; i < level.count; ++i) {
    if (places[i] >> 16 != next) return damaged(level.number, "entries overlap or leave gaps");
    next += places[i] & 0xFFFF;
  }
  if (next != state_->page_bytes) return damaged(level.number, "entries overlap or leave gaps");
  return true;
}

bool TreeCursor::enter(unsigned depth, uint64_t number, Bytes low, bool bounded, Bytes high) {
  if (number < 2 || number > state_->last_page) {
    return damaged(number, "the page number is impossible");
  }
  Level& level = levels_[depth];
  level.page = state_->base + number * state_->page_bytes;
  level.number = number;
  level.index = 0;
  level.low = low;
  level.bounded = bounded;
  level.high = high;
  const auto flags = load<uint16_t>(level.page + lmdb::kPageFlagsAt);
  if (load<uint64_t>(level.page) != number || (flags != lmdb::kLeaf && flags != lmdb::kBranch)) {
    return damaged(number, "it is another page, or of another kind");
  }
  level.leaf = flags == lmdb::kLeaf;
  // The leaves of a tree are all at the same depth.
  if (level.leaf != (depth + 1 == depth_)) return damaged(number, "the page is at the wrong depth");
  const auto lower = load<uint16_t>(level.page + lmdb::kPageLowerAt);
  level.upper = load<uint16_t>(level.page + lmdb::kPageUpperAt);
  if (lower < kPageHeaderBytes + (level.leaf ? 2 : 4) || lower % 2 != 0 || lower > level.upper ||
      level.upper >= state_->page_bytes) {
    return damaged(number, "the bounds of the page are impossible");
  }
  level.count = static_cast<uint16_t>((lower - kPageHeaderBytes) / 2);
  // In a branch the first key is never looked at.
  Node edge;
  if (!node(level, level.leaf ? 0 : 1, edge)) return false;
  if (compare(edge.key, low, integers_) < 0) return damaged(number, "keys are out of order");
  if (bounded) {
    if (!node(level, level.count - 1u, edge)) return false;
    if (compare(edge.key, high, integers_) >= 0) return damaged(number, "keys are out of order");
  }
  if (whole_ != nullptr && !whole_->contains(number)) {
    if (!whole(level)) return false;
    whole_->insert(number);
  }
  return true;
}

bool TreeCursor::enter_child(unsigned depth) {
  const Level& level = levels_[depth];
  Node child, after;
  if (!node(level, level.index, child)) return false;
  Bytes high = level.high;
  bool bounded = level.bounded;
  if (level.index + 1 < level.count) {
    if (!node(level, level.index + 1u, after)) return false;
    high = after.key;
    bounded = true;
  }
  return enter(depth + 1, child.child, level.index == 0 ? level.low : child.key, bounded, high);
}

// Enters the root. False with depth_ 0 and no damage: the tree is empty.
bool TreeCursor::start() {
  depth_ = 0;
  if (tree_->root == lmdb::kNoPage) {
    if (tree_->depth == 0 && tree_->entries == 0) return true;
    return damaged(0, "the root of a tree with entries is missing");
  }
  if (tree_->depth == 0 || tree_->depth > lmdb::kDepthMax) {
    return damaged(tree_->root, "the depth of a tree is impossible");
  }
  depth_ = tree_->depth;
  if (enter(0, tree_->root, {}, false, {})) return true;
  depth_ = 0;
  return false;
}

bool TreeCursor::go_down(unsigned from, bool last) {
  for (unsigned depth = from; depth + 1 < depth_; ++depth) {
    if (!enter_child(depth)) return false;
    Level& below = levels_[depth + 1];
    below.index = last ? static_cast<uint16_t>(below.count - 1) : uint16_t{0};
  }
  return true;
}

// To the leaf of `key`, and the first row >= it there; the index is the leaf's count if there is
// none.
bool TreeCursor::descend(Bytes key, bool& exact) {
  exact = false;
  if (!start()) return false;
  for (unsigned depth = 0; depth < depth_; ++depth) {
    Level& level = levels_[depth];
    Node middle;
    unsigned low = level.leaf ? 0 : 1, high = level.count;
    while (low < high) {
      const unsigned at = (low + high) / 2;
      if (!node(level, at, middle)) return false;
      const int order = compare(middle.key, key, integers_);
      if (order == 0 && level.leaf) {
        exact = true;
        level.index = static_cast<uint16_t>(at);
        return true;
      }
      if (order <= 0) {
        low = at + 1;
      } else {
        high = at;
      }
    }
    // In a branch: the last child whose key is <= `key`.
    level.index = static_cast<uint16_t>(level.leaf ? low : low - 1);
    if (!level.leaf && !enter_child(depth)) return false;
  }
  return true;
}

TreeCursor::Step TreeCursor::arrive() {
  const Level& leaf = levels_[depth_ - 1];
  return take(leaf, leaf.index, row_) ? Step::kYes : Step::kDamaged;
}

TreeCursor::Step TreeCursor::neighbour(bool forward) {
  if (depth_ == 0) return Step::kNo;
  unsigned depth = depth_ - 1;
  for (;;) {
    if (depth == 0) return Step::kNo;
    Level& level = levels_[--depth];
    if (forward ? level.index + 1 < level.count : level.index > 0) {
      level.index = static_cast<uint16_t>(forward ? level.index + 1 : level.index - 1);
      break;
    }
  }
  return go_down(depth, !forward) ? arrive() : Step::kDamaged;
}

TreeCursor::Step TreeCursor::find(Bytes key) {
  bool exact;
  if (!descend(key, exact)) return Step::kDamaged;
  if (depth_ == 0) return Step::kNo;
  if (exact) return arrive();
  const Level& leaf = levels_[depth_ - 1];
  if (leaf.index == 0 || leaf.index == leaf.count) {
    // At a leaf's edge: had the key that leads here been damaged, then the row were in the leaf
    // beside this one, whose keys would not fit.
    TreeCursor side(*this);
    if (side.neighbour(leaf.index != 0) == Step::kDamaged) {
      damaged(side.damaged_page_, side.damage_);
      return Step::kDamaged;
    }
  }
  return Step::kNo;
}

TreeCursor::Step TreeCursor::seek(Bytes key) {
  bool exact;
  if (!descend(key, exact)) return Step::kDamaged;
  if (depth_ == 0) return Step::kNo;
  const Level& leaf = levels_[depth_ - 1];
  if (leaf.index == leaf.count) return neighbour(true);
  if (leaf.index == 0 && !exact) {
    TreeCursor side(*this);
    if (side.neighbour(false) == Step::kDamaged) {
      damaged(side.damaged_page_, side.damage_);
      return Step::kDamaged;
    }
  }
  return arrive();
}

TreeCursor::Step TreeCursor::first() {
  if (!start()) return Step::kDamaged;
  if (depth_ == 0) return Step::kNo;
  return go_down(0, false) ? arrive() : Step::kDamaged;
}

void TreeCursor::walk_ahead(const Level& leaf) {
  constexpr uint32_t kLineBytes = 64;
  const auto ask = [](const uint8_t* page, uint32_t from, uint32_t to) {
    // Into the second cache: a page for each of many walks at once would not fit into the first.
    for (; from < to; from += kLineBytes) __builtin_prefetch(page + from, 0, 2);
  };
  const uint32_t page_bytes = state_->page_bytes;
  if (leaf.page == walked_) [[likely]] {
    if (ahead_ == nullptr) return;
    const uint32_t to = std::min(ahead_at_ + ahead_step_, page_bytes);
    ask(ahead_, ahead_at_, to);
    ahead_at_ = to;
    return;
  }
  // Rows lie at the end of their page, and leaves are two thirds full on average: of one ahead the
  // head is asked for and all but the first quarter. What is in that is known here; there it would
  // have to be read, which prefetching is not: it neither waits for a disk nor meets its errors.
  const uint32_t quarter = page_bytes / 4;
  const uint32_t rows_at = leaf.upper & ~(kLineBytes - 1);
  if (leaf.page == ahead_) {
    ask(leaf.page, rows_at, quarter);
    ask(leaf.page, ahead_at_, page_bytes);
  } else {
    ask(leaf.page, rows_at, page_bytes);
  }
  walked_ = leaf.page;
  ahead_ = nullptr;
  if (depth_ < 2) return;
  const Level& above = levels_[depth_ - 2];
  Node after;
  if (above.index + 1 >= above.count || !node(above, above.index + 1u, after) ||
      after.child > state_->last_page) {
    return;
  }
  if (above.index + 2 < above.count) {
    __builtin_prefetch(
        above.page + load<uint16_t>(above.page + kPageHeaderBytes + 2 * (above.index + size_t{2})));
  }
  ahead_ = state_->base + after.child * state_->page_bytes;
  __builtin_prefetch(ahead_, 0, 2);
  ahead_at_ = quarter;
  const uint32_t rows = std::max(1, leaf.count - leaf.index - 1);
  ahead_step_ = ((page_bytes - quarter) / rows / kLineBytes + 1) * kLineBytes;
}

TreeCursor::Step TreeCursor::next_leaf() {
  if (cold_) {
    read_ahead();
    return neighbour(true);
  }
  const auto begun = std::chrono::steady_clock::now();
  const Step step = neighbour(true);
  if (std::chrono::steady_clock::now() - begun > kColdLeafTime) {
    cold_ = true;
    read_ahead();
  }
  return step;
}

// Only asks: what goes wrong is met by who reads the page.
void TreeCursor::read_ahead() {
  if (depth_ < 2) return;
  const Level& above = levels_[depth_ - 2];
  const unsigned from = above.index + 1u;
  if (above.number == asked_ && from < asked_to_) return;
  asked_ = above.number;
  asked_to_ = std::min<unsigned>(above.count, from + kLeavesAhead);
  for (unsigned i = from; i < asked_to_; ++i) {
    Node child;
    if (!node(above, i, child) || child.child > state_->last_page) return;
    ::madvise(const_cast<uint8_t*>(state_->base) + child.child * state_->page_bytes,
              state_->page_bytes, MADV_WILLNEED);
  }
}

bool TreeCursor::step() {
  if (depth_ == 0) return false;
  Level& leaf = levels_[depth_ - 1];
  if (leaf.index + 1u >= leaf.count) return false;
  walk_ahead(leaf);
  Row row;
  if (!take(leaf, leaf.index + 1u, row) || compare(row_.key, row.key, integers_) >= 0) return false;
  ++leaf.index;
  row_ = row;
  return true;
}

TreeCursor::Step TreeCursor::next() {
  if (depth_ == 0) return Step::kNo;
  if (step()) return Step::kYes;
  Level& leaf = levels_[depth_ - 1];
  if (leaf.index + 1 >= leaf.count) {
    leaf.index = leaf.count;
    return next_leaf();
  }
  const Bytes before = row_.key;
  ++leaf.index;
  if (arrive() == Step::kDamaged) return Step::kDamaged;
  if (compare(before, row_.key, integers_) >= 0) {
    damaged(leaf.number, "keys are out of order");
    return Step::kDamaged;
  }
  return Step::kYes;
}

TreeCursor::Step TreeCursor::before(Row& row) const {
  if (depth_ == 0) return Step::kNo;
  const Level& leaf = levels_[depth_ - 1];
  if (leaf.index > 0) return take(leaf, leaf.index - 1u, row) ? Step::kYes : Step::kDamaged;
  TreeCursor side(*this);
  const Step step = side.neighbour(false);
  if (step == Step::kDamaged) damaged(side.damaged_page_, side.damage_);
  row = side.row_;
  return step;
}

TreeCursor::Step TreeCursor::at(Row& row) const {
  if (depth_ == 0) return Step::kNo;
  const Level& leaf = levels_[depth_ - 1];
  if (leaf.index < leaf.count) return take(leaf, leaf.index, row) ? Step::kYes : Step::kDamaged;
  TreeCursor side(*this);
  const Step step = side.neighbour(true);
  if (step == Step::kDamaged) damaged(side.damaged_page_, side.damage_);
  row = side.row_;
  return step;
}

TreeCursor::Step TreeCursor::visit_beside() const {
  const auto visit = [&](unsigned depth, unsigned index, bool last) {
    TreeCursor side(*this);
    side.levels_[depth].index = static_cast<uint16_t>(index);
    if (side.go_down(depth, last)) return true;
    return damaged(side.damaged_page_, side.damage_);
  };
  for (unsigned depth = 0; depth + 1 < depth_; ++depth) {
    const Level& level = levels_[depth];
    if (level.index > 0) {
      if (!visit(depth, level.index - 1u, true) || !visit(depth, 0, false)) return Step::kDamaged;
    }
    if (level.index + 1 < level.count && !visit(depth, level.index + 1u, false)) {
      return Step::kDamaged;
    }
  }
  return Step::kYes;
}

TreeCursor::Step find_table(const TreeState& state, std::string_view name, TreeHead& head,
                            TreeCursor& cursor) {
  cursor.reset(state, state.main);
  const TreeCursor::Step step = cursor.find(as_bytes(name));
  head = {};
  if (step != TreeCursor::Step::kYes) return step;
  // A row of a wrong size reads as a tree that cannot be.
  head.root = 0;
  if (cursor.value().size() == lmdb::kTreeBytes) head = TreeHead::parse(cursor.value().data());
  return step;
}

// --- TreeGuard

Status TreeGuard::damage(const TreeCursor& cursor, std::string_view table) const {
  return fail(Code::kCorrupt,
              fmt::format("page {} ({}): {}", cursor.damaged_page(), table, cursor.damage()));
}

Status TreeGuard::walk_free(const TreeState& state, Free& free) {
  free = {};
  TreeCursor cursor;
  cursor.reset(state, state.free, &whole_);
  uint32_t sum = 0;
  auto step = cursor.first();
  for (; step == TreeCursor::Step::kYes; step = cursor.next()) {
    const Bytes key = cursor.key(), value = cursor.value();
    const uint64_t count = value.size() >= 8 ? load<uint64_t>(value.data()) : UINT64_MAX;
    if (key.size() != 8 || count > value.size() / 8 - (value.size() >= 8 ? 1 : 0)) {
      return fail(Code::kCorrupt, "an entry of the free list is damaged");
    }
    uint64_t before = lmdb::kNoPage;
    for (uint64_t i = 1; i <= count; ++i) {
      const auto number = load<uint64_t>(value.data() + i * 8);
      if (number >= before || number < 2 || number > state.last_page) {
        return fail(Code::kCorrupt, "the free list names impossible pages");
      }
      before = number;
    }
    free.pages += count;
    sum = crc32c(value.first((count + 1) * 8), crc32c(key, sum));
  }
  if (step == TreeCursor::Step::kDamaged) return damage(cursor, "free list");
  free.sum = sum;
  return {};
}

Status TreeGuard::look(const TreeState& state, const std::vector<std::string_view>& tables) {
  state_ = state;
  names_ = tables;
  whole_.clear();
  heads_.assign(names_.size(), {});
  cursors_.resize(names_.size());
  tables_found_ = 0;
  table_pages_ = 0;
  TreeCursor cursor;
  cursor.reset(state_, state_.main, &whole_);
  auto step = cursor.first();
  for (; step == TreeCursor::Step::kYes; step = cursor.next()) {
    if (cursor.value().size() != lmdb::kTreeBytes) {
      return fail(Code::kCorrupt, "the table of tables is damaged");
    }
    const TreeHead head = TreeHead::parse(cursor.value().data());
    table_pages_ += head.pages();
    const auto at = std::find(names_.begin(), names_.end(), as_text(cursor.key()));
    if (at == names_.end()) continue;
    heads_[static_cast<size_t>(at - names_.begin())] = head;
    ++tables_found_;
  }
  if (step == TreeCursor::Step::kDamaged) return damage(cursor, "table of tables");
  for (size_t i = 0; i < names_.size(); ++i) cursors_[i].reset(state_, heads_[i], &whole_);
  return {};
}

Status TreeGuard::begin(const TreeState& state, const std::vector<std::string_view>& tables) {
  BASALT_CHECK_OK(look(state, tables));
  Free free;
  BASALT_CHECK_OK(walk_free(state_, free));
  if (committed_ == state_.transaction && (free.pages != free_.pages || free.sum != free_.sum)) {
    return fail(Code::kCorrupt, "the free list is not what the last commit wrote");
  }
  const uint64_t pages = 2 + state_.free.pages() + state_.main.pages() + table_pages_ + free.pages;
  if (pages != state_.last_page + 1) {
    return fail(Code::kCorrupt,
                fmt::format("{} pages are accounted for, of {}", pages, state_.last_page + 1));
  }
  return {};
}

void TreeGuard::committed(const TreeState& state) {
  whole_.clear();
  Free free;
  committed_.reset();
  if (!walk_free(state, free)) return;  // begin() will say so
  free_ = free;
  committed_ = state.transaction;
}

Status TreeGuard::cover(size_t table, Bytes key, bool removal) {
  TreeCursor& cursor = cursors_[table];
  if (cursor.find(key) == TreeCursor::Step::kDamaged ||
      (removal && cursor.visit_beside() == TreeCursor::Step::kDamaged)) {
    return damage(cursor, names_[table]);
  }
  return {};
}

Status TreeGuard::cover_all(size_t table) {
  TreeCursor& cursor = cursors_[table];
  auto step = cursor.first();
  while (step == TreeCursor::Step::kYes) step = cursor.next();
  if (step == TreeCursor::Step::kDamaged) return damage(cursor, names_[table]);
  return {};
}

}  // namespace basalt::storage
