#include "storage/index_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "storage/lmdb_format.h"

namespace basalt::storage {

namespace {

using lmdb::compare;
using lmdb::kBigData;
using lmdb::kBranch;
using lmdb::kDataVersion;
using lmdb::kDepthMax;
using lmdb::kIntegerKey;
using lmdb::kLeaf;
using lmdb::kMagic;
using lmdb::kMetaBytes;
using lmdb::kMetaPage;
using lmdb::kNodeHeaderBytes;
using lmdb::kNoPage;
using lmdb::kOverflow;
using lmdb::kPageHeaderBytes;
using lmdb::kSubTree;
using lmdb::kTreeBytes;
using lmdb::load;
// Unit of reading, and how many of them are kept: neighbours of a page are mostly wanted soon.
constexpr size_t kBlockReadBytes = 128 * 1024;
constexpr size_t kBlocksKept = 128;
// A value of ours is at most some 520 KiB (a batch's limit); this is only a guard.
constexpr uint64_t kValueBytesMax = 16u << 20;

std::string text_of(Bytes bytes) { return std::string(as_text(bytes)); }

struct Node {
  uint16_t offset = 0;
  uint16_t bytes = 0;  // in the page
  uint16_t flags = 0;
  Bytes key;
  uint64_t child = 0;  // of a branch
  uint32_t value_bytes = 0;
  const uint8_t* value = nullptr;  // in the page: the value, or the number of its first page
};

// Takes a page apart. Empty text: it is sound.
std::string parse_nodes(const uint8_t* page, uint32_t page_bytes, bool leaf,
                        std::vector<Node>& nodes) {
  nodes.clear();
  const auto lower = load<uint16_t>(page + 12), upper = load<uint16_t>(page + 14);
  if (lower < kPageHeaderBytes || lower % 2 != 0 || lower > upper || upper > page_bytes) {
    return "its bounds are impossible";
  }
  const size_t count = (lower - kPageHeaderBytes) / 2;
  if (count < (leaf ? 1u : 2u)) return "it holds too few entries";
  for (size_t i = 0; i < count; ++i) {
    Node node;
    node.offset = load<uint16_t>(page + kPageHeaderBytes + i * 2);
    if (node.offset < upper || node.offset + kNodeHeaderBytes > page_bytes) {
      return "an entry lies outside of it";
    }
    const uint8_t* at = page + node.offset;
    const auto low = load<uint16_t>(at), high = load<uint16_t>(at + 2);
    node.flags = load<uint16_t>(at + 4);
    const auto key_bytes = load<uint16_t>(at + 6);
    size_t bytes = kNodeHeaderBytes + key_bytes;
    if (leaf) {
      node.value_bytes = low | uint32_t{high} << 16;
      if ((node.flags & ~(kBigData | kSubTree)) != 0) return "an entry has unknown flags";
      bytes += (node.flags & kBigData) != 0 ? 8 : size_t{node.value_bytes};
    } else {
      node.child = low | uint64_t{high} << 16 | uint64_t{node.flags} << 32;
    }
    bytes = round_up(bytes, 2);
    if (bytes > page_bytes - node.offset) return "an entry reaches behind its end";
    node.bytes = static_cast<uint16_t>(bytes);
    node.key = {at + kNodeHeaderBytes, key_bytes};
    node.value = at + kNodeHeaderBytes + key_bytes;
    nodes.push_back(node);
  }
  // LMDB keeps the nodes of a page packed: they tile [upper, end) exactly.
  std::vector<std::pair<uint16_t, uint16_t>> places;
  for (const Node& node : nodes) places.emplace_back(node.offset, node.bytes);
  std::sort(places.begin(), places.end());
  size_t next = upper;
  for (const auto& [offset, bytes] : places) {
    if (offset != next) return "its entries overlap or leave gaps";
    next = size_t{offset} + bytes;
  }
  if (next != page_bytes) return "its entries overlap or leave gaps";
  return {};
}

}  // namespace

void IndexPages::Freer::operator()(uint8_t* memory) const { std::free(memory); }

struct IndexPages::Walk {
  Tree& tree;
  Bytes start;
  const Visit& visit;
  const Damaged& damaged;
  bool check;  // counts and page use too
  bool integers;
  bool enough = false;
  uint64_t branch_pages = 0, leaf_pages = 0, overflow_pages = 0, entries = 0;
  bool hidden = false;                      // something could not be walked: counts will not agree
  std::vector<std::vector<uint8_t>> pages;  // one a level
  std::vector<std::vector<Node>> nodes;
  std::vector<uint8_t> big;

  void report(uint64_t page, std::string what, bool hides, Bytes low,
              const std::optional<Bytes>& high) {
    PageDamage damage{page, tree.name, std::move(what), hides, text_of(low), std::nullopt};
    if (high) damage.high = text_of(*high);
    hidden |= hides;
    damaged(damage);
  }
};

Result<std::unique_ptr<IndexPages>> IndexPages::open(const std::string& path, Pace pace) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!fd && errno == EINVAL) fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return fail(Code::kNotFound, path + " is missing");
    return fail_errno(errno, "open " + path);
  }
  std::unique_ptr<IndexPages> pages(new IndexPages(std::move(fd)));
  pages->pace_ = std::move(pace);
  return pages;
}

Status IndexPages::read_page(uint64_t number, uint8_t* out) {
  const uint64_t offset = number * page_bytes_;
  const uint64_t block_number = offset / kBlockReadBytes;
  auto found = by_number_.find(block_number);
  if (found == by_number_.end()) {
    if (pace_) BASALT_CHECK_OK(pace_(kBlockReadBytes));
    Block block{block_number, nullptr, 0};
    if (blocks_.size() >= kBlocksKept) {
      block.bytes = blocks_.back().bytes;
      by_number_.erase(blocks_.back().number);
      blocks_.pop_back();
    } else {
      memory_.emplace_back(static_cast<uint8_t*>(std::aligned_alloc(4096, kBlockReadBytes)));
      block.bytes = memory_.back().get();
      BASALT_CHECK(block.bytes != nullptr);
    }
    auto got = read_at(fd_.get(), {block.bytes, kBlockReadBytes}, block_number * kBlockReadBytes);
    if (!got) {
      // One unreadable sector must not hide its neighbours: the page alone.
      got = read_at(fd_.get(), {block.bytes, page_bytes_}, offset);
      if (!got) return std::unexpected(got.error());
      std::memcpy(out, block.bytes, page_bytes_);
      if (*got < page_bytes_) std::memset(out + *got, 0, page_bytes_ - *got);
      return {};
    }
    bytes_read_ += *got;
    block.size = *got;
    blocks_.push_front(block);
    found = by_number_.emplace(block_number, blocks_.begin()).first;
  } else {
    blocks_.splice(blocks_.begin(), blocks_, found->second);
  }
  const Block& block = *found->second;
  const size_t begin = offset % kBlockReadBytes;
  const size_t have = block.size > begin ? std::min<size_t>(block.size - begin, page_bytes_) : 0;
  std::memcpy(out, block.bytes + begin, have);
  std::memset(out + have, 0, page_bytes_ - have);
  return {};
}

Status IndexPages::read_run(uint64_t number, uint64_t count, std::vector<uint8_t>& out) {
  out.resize(count * page_bytes_);
  for (uint64_t i = 0; i < count; ++i) {
    BASALT_CHECK_OK(read_page(number + i, out.data() + i * page_bytes_));
  }
  return {};
}

IndexPages::Tree IndexPages::parse_tree(std::string name, const uint8_t* at) {
  Tree tree;
  tree.name = std::move(name);
  tree.flags = load<uint16_t>(at + 4);
  tree.depth = load<uint16_t>(at + 6);
  tree.branch_pages = load<uint64_t>(at + 8);
  tree.leaf_pages = load<uint64_t>(at + 16);
  tree.overflow_pages = load<uint64_t>(at + 24);
  tree.entries = load<uint64_t>(at + 32);
  tree.root = load<uint64_t>(at + 40);
  return tree;
}

Status IndexPages::read_metas(std::array<Meta, 2>& metas) {
  struct stat info{};
  if (::fstat(fd_.get(), &info) != 0) return fail_errno(errno, "stat index");
  file_bytes_ = static_cast<uint64_t>(info.st_size);
  blocks_.clear();
  by_number_.clear();
  memory_.clear();
  // The page size stands in the meta pages; before it is known they are looked for where a page of
  // 4 KiB puts them, then where the first one says.
  page_bytes_ = 4096;
  std::vector<uint8_t> page(65536);
  for (size_t i = 0; i < 2; ++i) {
    BASALT_CHECK_OK(read_page(i, page.data()));
    Meta& meta = metas[i];
    const uint8_t* at = page.data() + kPageHeaderBytes;
    static_assert(kPageHeaderBytes + kMetaBytes <= 4096);
    if (load<uint64_t>(page.data()) != i || load<uint16_t>(page.data() + 10) != kMetaPage) {
      meta.why = "it is not a meta page";
      continue;
    }
    if (load<uint32_t>(at) != kMagic || load<uint32_t>(at + 4) != kDataVersion) {
      meta.why = "magic or version is wrong";
      continue;
    }
    meta.page_bytes = load<uint32_t>(at + 24);
    meta.free = parse_tree("free", at + 24);
    meta.main = parse_tree("main", at + 24 + kTreeBytes);
    meta.last_page = load<uint64_t>(at + 120);
    meta.transaction = load<uint64_t>(at + 128);
    if (meta.page_bytes < 4096 || meta.page_bytes > 32768 ||
        (meta.page_bytes & (meta.page_bytes - 1)) != 0) {
      meta.why = "the page size is impossible";
      continue;
    }
    if (i == 0) page_bytes_ = meta.page_bytes;
    if (meta.page_bytes != page_bytes_) {
      meta.why = "the page size is not that of the file";
      continue;
    }
    // A commit may have made the file longer since.
    if (::fstat(fd_.get(), &info) != 0) return fail_errno(errno, "stat index");
    file_bytes_ = static_cast<uint64_t>(info.st_size);
    if (meta.last_page < 1 || (meta.last_page + 1) * page_bytes_ > file_bytes_) {
      meta.why = "it names pages behind the end of the file";
      continue;
    }
    const auto root_good = [&](const Tree& tree) {
      return tree.root == kNoPage || (tree.root > 1 && tree.root <= meta.last_page);
    };
    if (!root_good(meta.free) || !root_good(meta.main)) {
      meta.why = "a root is outside of the file";
      continue;
    }
    // Commits alternate: an odd one is in page 1.
    if (meta.transaction != 0 && meta.transaction % 2 != i) {
      meta.why = "its transaction belongs into the other page";
      continue;
    }
    meta.valid = true;
  }
  return {};
}

Status IndexPages::select(std::optional<uint64_t> id, const Damaged& damaged) {
  std::array<Meta, 2> metas;
  BASALT_CHECK_OK(read_metas(metas));
  for (size_t i = 0; i < 2; ++i) {
    if (!metas[i].valid) damaged({i, "meta", "meta page: " + metas[i].why, false, {}, {}});
  }
  if (metas[0].valid && metas[1].valid) {
    const uint64_t a = metas[0].transaction, b = metas[1].transaction;
    if ((a > b ? a - b : b - a) > 1) {
      damaged({a > b ? 0u : 1u,
               "meta",
               fmt::format("meta pages: transactions {} and {} do not follow each other", a, b),
               false,
               {},
               {}});
    }
  }
  const Meta* chosen = nullptr;
  for (const Meta& meta : metas) {
    if (!meta.valid || (id && meta.transaction != *id)) continue;
    if (chosen == nullptr || meta.transaction > chosen->transaction) chosen = &meta;
  }
  if (chosen == nullptr) {
    if (id && (metas[0].valid || metas[1].valid)) {
      return fail(Code::kNotFound, "the snapshot's meta page was replaced");
    }
    return fail(Code::kCorrupt, "no usable meta page");
  }
  transaction_ = chosen->transaction;
  last_page_ = chosen->last_page;
  free_ = chosen->free;
  main_ = chosen->main;
  return load_tables(damaged);
}

Status IndexPages::load_tables(const Damaged& damaged) {
  tables_.clear();
  const Visit visit = [&](Bytes key, Bytes value, uint64_t page) {
    if (value.size() != kTreeBytes) {
      damaged({page, "main", "an entry of the table of tables has a wrong size", false, {}, {}});
      return true;
    }
    Tree tree = parse_tree(text_of(key), value.data());
    tables_.insert_or_assign(tree.name, std::move(tree));
    return true;
  };
  // Reported by check() or by the caller's own walk; here only the names matter.
  return walk_tree(main_, {}, visit, [](const PageDamage&) {}, false);
}

bool IndexPages::use_page(Walk& walk, uint64_t number) {
  if (!walk.check) return true;
  if (used_[number]) return false;
  used_[number] = true;
  return true;
}

Status IndexPages::descend(Walk& walk, uint64_t number, unsigned level, Bytes low,
                           std::optional<Bytes> high) {
  if (number < 2 || number > last_page_ || level >= kDepthMax) {
    walk.report(number, "a page number or the depth is impossible", true, low, high);
    return {};
  }
  if (!use_page(walk, number)) {
    walk.report(number, "the page is used twice", true, low, high);
    return {};
  }
  if (walk.pages.size() <= level) {
    walk.pages.resize(level + 1);
    walk.nodes.resize(level + 1);
  }
  walk.pages[level].resize(page_bytes_);
  uint8_t* page = walk.pages[level].data();
  if (auto read = read_page(number, page); !read) {
    if (read.error().code == Code::kCancelled) return read;
    walk.report(number, "the page cannot be read: " + read.error().detail, true, low, high);
    return {};
  }
  const auto flags = load<uint16_t>(page + 10);
  const bool leaf = flags == kLeaf;
  if (load<uint64_t>(page) != number || (flags != kLeaf && flags != kBranch)) {
    const bool zeroed =
        std::all_of(page, page + page_bytes_, [](uint8_t byte) { return byte == 0; });
    walk.report(number, zeroed ? "the page is zeroed" : "it is another page or of another kind",
                true, low, high);
    return {};
  }
  // The leaves of a tree are all at the same depth.
  if (leaf != (level + 1 == walk.tree.depth)) {
    walk.report(number, "the page is at the wrong depth", true, low, high);
    return {};
  }
  if (std::string what = parse_nodes(page, page_bytes_, leaf, walk.nodes[level]); !what.empty()) {
    walk.report(number, "the page is damaged: " + what, true, low, high);
    return {};
  }
  const size_t count = walk.nodes[level].size();
  // In a branch the first key is never compared: it may be empty.
  for (size_t i = leaf ? 0 : 1; i < count; ++i) {
    const Bytes key = walk.nodes[level][i].key;
    const bool first = i == (leaf ? 0 : 1);
    const Bytes before = first ? low : walk.nodes[level][i - 1].key;
    const bool rising =
        first ? (leaf || !low.empty() ? compare(key, before, walk.integers) >= 0 : true)
              : compare(before, key, walk.integers) < 0;
    if (!rising || (high && compare(key, *high, walk.integers) >= 0) || key.empty()) {
      walk.report(number, "keys are out of order", true, low, high);
      return {};
    }
  }
  ++(leaf ? walk.leaf_pages : walk.branch_pages);
  if (!leaf) {
    for (size_t i = 0; i < count && !walk.enough; ++i) {
      const Bytes child_low = i == 0 ? low : walk.nodes[level][i].key;
      const std::optional<Bytes> child_high =
          i + 1 < count ? std::optional<Bytes>(walk.nodes[level][i + 1].key) : high;
      if (!walk.check && child_high && compare(*child_high, walk.start, walk.integers) <= 0) {
        continue;
      }
      BASALT_CHECK_OK(descend(walk, walk.nodes[level][i].child, level + 1, child_low, child_high));
    }
    return {};
  }
  for (size_t i = 0; i < count && !walk.enough; ++i) {
    const Node& node = walk.nodes[level][i];
    ++walk.entries;
    if (!walk.check && compare(node.key, walk.start, walk.integers) < 0) continue;
    Bytes value{node.value, node.value_bytes};
    if ((node.flags & kBigData) != 0) {
      const auto first = load<uint64_t>(node.value);
      const uint64_t pages = (kPageHeaderBytes - 1 + node.value_bytes) / page_bytes_ + 1;
      const auto hidden = [&](const char* what) {
        walk.report(first, what, true, node.key,
                    i + 1 < count ? std::optional<Bytes>(walk.nodes[level][i + 1].key) : high);
      };
      if (node.value_bytes > kValueBytesMax || first < 2 || first > last_page_ ||
          pages > last_page_ - first + 1) {
        hidden("a large value is outside of the file");
        continue;
      }
      bool fresh = true;
      for (uint64_t p = first; p < first + pages; ++p) fresh &= use_page(walk, p);
      if (!fresh) {
        hidden("a page of a large value is used twice");
        continue;
      }
      if (auto read = read_run(first, pages, walk.big); !read) {
        if (read.error().code == Code::kCancelled) return read;
        hidden("a page of a large value cannot be read");
        continue;
      }
      if (load<uint64_t>(walk.big.data()) != first ||
          load<uint16_t>(walk.big.data() + 10) != kOverflow ||
          load<uint32_t>(walk.big.data() + 12) != pages) {
        hidden("the page of a large value is another one");
        continue;
      }
      walk.overflow_pages += pages;
      value = {walk.big.data() + kPageHeaderBytes, node.value_bytes};
    }
    if (((node.flags & kSubTree) != 0) != (&walk.tree == &main_)) {
      walk.report(number, "an entry is of the wrong kind", true, node.key, high);
      continue;
    }
    if (!walk.visit(node.key, value, number)) walk.enough = true;
  }
  return {};
}

Status IndexPages::walk_tree(Tree& tree, Bytes start, const Visit& visit, const Damaged& damaged,
                             bool check) {
  Walk walk{tree, start, visit, damaged, check, (tree.flags & kIntegerKey) != 0};
  if (tree.root == kNoPage) {
    if (check && (tree.depth | tree.entries | tree.leaf_pages) != 0) {
      walk.report(0, "the root of a tree with entries is missing", true, {}, std::nullopt);
    }
    return {};
  }
  BASALT_CHECK_OK(descend(walk, tree.root, 0, {}, std::nullopt));
  if (!check || walk.hidden) return {};
  if (walk.branch_pages != tree.branch_pages || walk.leaf_pages != tree.leaf_pages ||
      walk.overflow_pages != tree.overflow_pages || walk.entries != tree.entries) {
    walk.report(
        tree.root,
        fmt::format("the tree has {} entries on {} pages, its head says {} on {}", walk.entries,
                    walk.branch_pages + walk.leaf_pages + walk.overflow_pages, tree.entries,
                    tree.branch_pages + tree.leaf_pages + tree.overflow_pages),
        false, {}, std::nullopt);
  }
  return {};
}

Status IndexPages::walk(std::string_view table, Bytes start, const Visit& visit,
                        const Damaged& damaged) {
  const auto found = tables_.find(table);
  if (found == tables_.end()) return {};
  return walk_tree(found->second, start, visit, damaged, false);
}

Status IndexPages::check(const std::function<Visit(std::string_view table)>& visit,
                         const Damaged& damaged) {
  used_.assign(last_page_ + 1, false);
  used_[0] = used_[1] = true;
  bool hidden = false;
  const Damaged noting = [&](const PageDamage& damage) {
    hidden |= damage.hides_keys;
    damaged(damage);
  };
  std::vector<uint64_t> free_pages;
  const Visit of_free = [&](Bytes key, Bytes value, uint64_t page) {
    const uint64_t count = value.size() >= 8 ? load<uint64_t>(value.data()) : 1;
    if (key.size() != 8 || value.size() < 8 || count > value.size() / 8 - 1) {
      noting({page, "free", "an entry of the free list is damaged", false, {}, {}});
      return true;
    }
    uint64_t before = kNoPage;
    for (uint64_t i = 1; i <= count; ++i) {
      const auto number = load<uint64_t>(value.data() + i * 8);
      if (number >= before || number < 2 || number > last_page_) {
        noting({page, "free", "the free list names impossible pages", false, {}, {}});
        return true;
      }
      before = number;
      free_pages.push_back(number);
    }
    return true;
  };
  BASALT_CHECK_OK(walk_tree(free_, {}, of_free, noting, true));
  const Visit of_main = [](Bytes, Bytes, uint64_t) { return true; };
  BASALT_CHECK_OK(walk_tree(main_, {}, of_main, noting, true));
  for (auto& [name, tree] : tables_) {
    BASALT_CHECK_OK(walk_tree(tree, {}, visit(name), noting, true));
  }
  uint64_t twice = 0;
  for (const uint64_t number : free_pages) {
    twice += used_[number];
    used_[number] = true;
  }
  if (twice != 0) {
    damaged({0,
             "free",
             fmt::format("{} pages are free and in use, or free twice", twice),
             false,
             {},
             {}});
  }
  // Behind damage the pages that it hides are unaccounted; that was reported already.
  if (!hidden) {
    const auto lost = static_cast<uint64_t>(std::count(used_.begin(), used_.end(), false));
    if (lost != 0) {
      damaged(
          {0, "free", fmt::format("{} pages are neither in use nor free", lost), false, {}, {}});
    }
  }
  used_.clear();
  return {};
}

}  // namespace basalt::storage
