#include "tests/sim/sim_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace basalt::sim {
namespace {

// What comes late does so within so many calls of the next process: some of recovery, or later.
constexpr uint64_t kLateCallsMax = 400;

uint64_t pages_of(uint64_t bytes) { return (bytes + 4095) / 4096; }

bool all_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

}  // namespace

void SimDisk::Content::resize(uint64_t bytes) {
  slots.resize(pages_of(bytes));
  size = bytes;
}

SimDisk::SimDisk(Chance& chance, Trace& trace, std::string root, uint64_t capacity)
    : capacity_bytes(capacity), chance_(chance), trace_(trace), root_path_(std::move(root)) {
  top_ = make_inode(true);
}

SimDisk::InodePtr SimDisk::make_inode(bool directory) {
  auto inode = std::make_shared<Inode>();
  inode->id = next_inode_++;
  inode->directory = directory;
  return inode;
}

SimDisk::InodePtr SimDisk::inode_of(int fd) const {
  const auto found = open_.find(fd);
  return found == open_.end() ? nullptr : found->second.inode;
}

SimDisk::InodePtr SimDisk::walk(int at, const std::string& path, std::string& name) const {
  if (at == AT_FDCWD) {
    // The data directory, or the one that holds it.
    const bool root = path == root_path_;
    BASALT_CHECK(root || root_path_.starts_with(path));
    name = root ? "data" : ".";
    return top_;
  }
  InodePtr inode = inode_of(at);
  size_t begin = 0;
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', begin)) {
    if (inode == nullptr || !inode->directory) return nullptr;
    const auto found = inode->entries.find(path.substr(begin, slash - begin));
    if (found == inode->entries.end()) return nullptr;
    inode = found->second;
    begin = slash + 1;
  }
  name = path.substr(begin);
  return inode != nullptr && inode->directory ? inode : nullptr;
}

bool SimDisk::begin_change(const char* what, uint64_t inode, uint64_t a, uint64_t b) {
  if (dead_) return false;
  land_late();
  trace_.event(what, inode, a, b);
  if (crash_in_ != 0 && --crash_in_ == 0) {
    crash();
    return false;
  }
  return true;
}

int SimDisk::open(int at, const char* path, int flags) {
  if (dead_) return -EIO;
  std::string name;
  const InodePtr directory = walk(at, path, name);
  if (directory == nullptr) return -ENOENT;
  InodePtr inode;
  if (name == ".") {
    inode = directory;
  } else if (const auto found = directory->entries.find(name); found != directory->entries.end()) {
    if ((flags & O_EXCL) != 0) return -EEXIST;
    inode = found->second;
  }
  if ((flags & O_DIRECT) != 0 && !direct_io) return -EINVAL;
  if (inode == nullptr) {
    if ((flags & O_CREAT) == 0) return -ENOENT;
    if (used_bytes() >= capacity_bytes) return -ENOSPC;
    inode = make_inode(false);
    if (!begin_change("create", inode->id, directory->id, 0)) return -EIO;
    directory->entries[name] = inode;
    directory->pending_entries.push_back({{}, name, inode});
  }
  if ((flags & O_DIRECTORY) != 0 && !inode->directory) return -ENOTDIR;
  if ((flags & O_TRUNC) != 0 && inode->seen.size != 0) {
    if (!begin_change("truncate", inode->id, 0, 0)) return -EIO;
    inode->seen.resize(0);
    inode->pending.push_back({.kind = Change::Kind::kTruncate, .size = 0});
  }
  const int fd = next_fd_++;
  open_[fd] = {inode, false, (flags & O_DIRECT) != 0};
  return fd;
}

void SimDisk::close(int fd) {
  const auto found = open_.find(fd);
  if (found == open_.end()) return;  // of before the crash
  if (found->second.inode->locked_by == fd) found->second.inode->locked_by = -1;
  open_.erase(found);
}

int64_t SimDisk::read(int fd, MutableBytes out, uint64_t offset) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode == nullptr || inode->directory) return -EBADF;
  // Also of the rest of a short transfer, which need not begin with a block.
  if (open_.at(fd).direct && (offset % kPage != 0 || out.size() % kPage != 0 ||
                              reinterpret_cast<uintptr_t>(out.data()) % kPage != 0)) {
    return -EINVAL;
  }
  land_late();
  if (chance_.happens(faults.interrupted)) return -EINTR;
  if (chance_.happens(faults.read_error)) {
    ++read_errors_;
    trace_.event("read error", inode->id, offset);
    return -EIO;
  }
  if (offset >= inode->seen.size) return 0;
  uint64_t length = std::min<uint64_t>(out.size(), inode->seen.size - offset);
  if (length > 1 && chance_.happens(faults.short_transfer)) length = chance_.between(1, length - 1);
  if (!inode->unreadable.empty()) {
    const auto bad = inode->unreadable.lower_bound(offset / kSector);
    if (bad != inode->unreadable.end() && *bad <= (offset + length - 1) / kSector) {
      ++read_errors_;
      trace_.event("unreadable sector", inode->id, *bad);
      return -EIO;
    }
  }
  for (uint64_t done = 0; done < length;) {
    const uint64_t at = offset + done;
    const uint64_t piece = std::min(kPage - at % kPage, length - done);
    const PagePtr& page = inode->seen.slots[at / kPage].page;
    if (page == nullptr) {
      std::memset(out.data() + done, 0, piece);
    } else {
      std::memcpy(out.data() + done, page->data() + at % kPage, piece);
    }
    done += piece;
  }
  return static_cast<int64_t>(length);
}

int64_t SimDisk::read_resident(int fd, MutableBytes out, uint64_t offset) {
  if (!chance_.happens(resident)) return -EAGAIN;
  return read(fd, out, offset);
}

int64_t SimDisk::resident_pages(int fd, uint64_t offset, uint64_t length) {
  if (inode_of(fd) == nullptr || !chance_.happens(resident)) return 0;
  return static_cast<int64_t>((offset + length - 1) / kPage - offset / kPage + 1);
}

int64_t SimDisk::write(int fd, Bytes bytes, uint64_t offset) {
  const InodePtr inode = inode_of(fd);
  if (dead_) return -EIO;
  if (inode == nullptr || inode->directory) return -EBADF;
  // All that the engine writes is whole blocks, because of O_DIRECT.
  BASALT_CHECK(offset % kPage == 0 && bytes.size() % kPage == 0 && !bytes.empty());
  if (chance_.happens(faults.interrupted)) return -EINTR;
  uint64_t length = bytes.size();
  if (length > kPage && chance_.happens(faults.short_transfer)) {
    length = kPage * chance_.between(1, length / kPage - 1);
  }
  const uint64_t end = offset + length;
  if (pages_of(end) > inode->seen.slots.size()) {
    const uint64_t grown = (pages_of(end) - inode->seen.slots.size()) * kPage;
    if (used_bytes() + grown > capacity_bytes) return -ENOSPC;
  }
  Change change{.kind = Change::Kind::kWrite, .first_page = offset / kPage, .size = end};
  for (uint64_t at = 0; at < length; at += kPage) {
    const Bytes piece = bytes.subspan(at, kPage);
    if (all_zero(piece)) {
      change.pages.push_back(nullptr);
      continue;
    }
    auto page = std::make_shared<Page>();
    std::memcpy(page->data(), piece.data(), kPage);
    change.pages.push_back(std::move(page));
  }
  if (chance_.happens(faults.write_error)) {
    failed_write_ = true;
    trace_.event("write error", inode->id, offset, length);
    change.pages.resize(chance_.below(change.pages.size() + 1));
    if (!change.pages.empty()) {
      change.size = offset + change.pages.size() * kPage;
      apply(inode->seen, change);
      inode->pending.push_back(std::move(change));
    }
    return -EIO;
  }
  apply(inode->seen, change);
  inode->pending.push_back(std::move(change));
  if (!begin_change("write", inode->id, offset, length)) return -EIO;
  return static_cast<int64_t>(length);
}

void SimDisk::apply(Content& content, const Change& change) {
  if (change.kind == Change::Kind::kTruncate) return content.resize(change.size);
  if (change.size > content.size) content.resize(change.size);
  for (size_t i = 0; i < change.pages.size(); ++i) {
    content.slots[change.first_page + i] = {change.pages[i], true};
  }
}

// Each page of a write: there, not there, or some of its sectors.
void SimDisk::apply_torn(Content& content, const Change& change) {
  if (change.kind != Change::Kind::kWrite) return apply(content, change);
  const double there = static_cast<double>(chance_.below(5)) / 4;
  for (size_t i = 0; i < change.pages.size(); ++i) {
    if (!chance_.happens(there)) continue;
    const uint64_t end = (change.first_page + i + 1) * kPage;
    if (end > content.size) content.resize(std::min(end, std::max(end, content.size)));
    Slot& slot = content.slots[change.first_page + i];
    slot.written = true;
    if (chance_.happens(0.7)) {
      slot.page = change.pages[i];
      continue;
    }
    auto torn = std::make_shared<Page>();
    if (slot.page != nullptr) *torn = *slot.page;
    const uint64_t sectors = chance_.next();
    for (uint64_t sector = 0; sector < kPage / kSector; ++sector) {
      if ((sectors >> sector & 1) == 0) continue;
      uint8_t* at = torn->data() + sector * kSector;
      if (change.pages[i] == nullptr) {
        std::memset(at, 0, kSector);
      } else {
        std::memcpy(at, change.pages[i]->data() + sector * kSector, kSector);
      }
    }
    slot.page = std::move(torn);
  }
}

// What of the pending changes reaches the disk without a sync that succeeds.
void SimDisk::pick_part(std::vector<Change>& pending, Content& content, bool failed_sync) {
  const uint64_t mode = chance_.below(4);
  for (size_t i = 0; i < pending.size(); ++i) {
    switch (mode) {
      case 0:
        break;
      case 1:
        if (!failed_sync) apply(content, pending[i]);
        break;
      case 2:
        if (chance_.happens(0.5)) apply_torn(content, pending[i]);
        break;
      default:
        if (chance_.happens(0.5)) apply(content, pending[i]);
        break;
    }
  }
  pending.clear();
}

int SimDisk::sync(int fd) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode == nullptr) return -EBADF;
  if (chance_.happens(faults.interrupted)) return -EINTR;
  if (!begin_change("sync", inode->id, inode->pending.size(), inode->pending_entries.size())) {
    return -EIO;
  }
  if (std::exchange(open_[fd].error, false)) return -EIO;
  if (chance_.happens(faults.sync_error)) {
    failed_write_ = true;
    trace_.event("sync error", inode->id);
    // The page cache keeps the error for every open file; that of a flush only its caller hears of.
    if (chance_.happens(0.5)) {
      for (auto& [number, open] : open_) open.error |= number != fd && open.inode == inode;
    }
    // Of entries the file system keeps a journal: they stay pending. Data pages count as clean from
    // now on.
    pick_part(inode->pending, inode->durable, true);
    return -EIO;
  }
  for (const Change& change : inode->pending) apply(inode->durable, change);
  inode->pending.clear();
  for (const EntryChange& change : inode->pending_entries) {
    if (!change.remove.empty()) inode->durable_entries.erase(change.remove);
    if (!change.add.empty()) inode->durable_entries[change.add] = change.inode;
  }
  inode->pending_entries.clear();
  return 0;
}

int SimDisk::allocate(int fd, uint64_t size) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode == nullptr || inode->directory) return -EBADF;
  if (chance_.happens(faults.interrupted)) return -EINTR;
  land_late(inode.get());
  if (chance_.happens(faults.allocate_unsupported)) return -EOPNOTSUPP;
  if (size <= inode->seen.size) return 0;
  const uint64_t grown = (pages_of(size) - inode->seen.slots.size()) * kPage;
  if (used_bytes() + grown > capacity_bytes) return -ENOSPC;
  if (!begin_change("allocate", inode->id, size, 0)) return -EIO;
  inode->seen.resize(size);
  inode->pending.push_back({.kind = Change::Kind::kGrow, .size = size});
  return 0;
}

int SimDisk::truncate(int fd, uint64_t size) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode == nullptr || inode->directory) return -EBADF;
  land_late(inode.get());
  if (!begin_change("truncate", inode->id, size, 0)) return -EIO;
  inode->seen.resize(size);
  inode->pending.push_back({.kind = Change::Kind::kTruncate, .size = size});
  return 0;
}

int64_t SimDisk::seek(int fd, uint64_t offset, int whence) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode == nullptr) return -EBADF;
  if (offset >= inode->seen.size) return -ENXIO;
  const bool wanted = whence == SEEK_DATA;
  for (uint64_t page = offset / kPage; page < inode->seen.slots.size(); ++page) {
    if (inode->seen.slots[page].written == wanted) {
      return static_cast<int64_t>(std::max(offset, page * kPage));
    }
  }
  return wanted ? -ENXIO : static_cast<int64_t>(inode->seen.size);
}

int64_t SimDisk::size(int fd) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  return inode == nullptr ? -EBADF : static_cast<int64_t>(inode->seen.size);
}

int SimDisk::lock(int fd) {
  if (dead_) return -EIO;
  const InodePtr inode = inode_of(fd);
  if (inode->locked_by >= 0) return -EWOULDBLOCK;
  inode->locked_by = fd;
  return 0;
}

int SimDisk::make_directory(int at, const char* path) {
  if (dead_) return -EIO;
  std::string name;
  const InodePtr directory = walk(at, path, name);
  if (directory == nullptr) return -ENOENT;
  if (directory->entries.contains(name)) return -EEXIST;
  const InodePtr inode = make_inode(true);
  if (!begin_change("mkdir", inode->id, directory->id, 0)) return -EIO;
  directory->entries[name] = inode;
  directory->pending_entries.push_back({{}, name, inode});
  return 0;
}

int SimDisk::rename(int at, const char* from, const char* to) {
  if (dead_) return -EIO;
  std::string name, new_name;
  const InodePtr directory = walk(at, from, name);
  const InodePtr target = walk(at, to, new_name);
  BASALT_CHECK(directory == target && directory != nullptr);
  const auto found = directory->entries.find(name);
  if (found == directory->entries.end()) return -ENOENT;
  const InodePtr inode = found->second;
  if (!begin_change("rename", inode->id, directory->id, 0)) return -EIO;
  directory->entries.erase(found);
  directory->entries[new_name] = inode;
  directory->pending_entries.push_back({name, new_name, inode});
  return 0;
}

int SimDisk::unlink(int at, const char* path) {
  if (dead_) return -EIO;
  std::string name;
  const InodePtr directory = walk(at, path, name);
  if (directory == nullptr || !directory->entries.contains(name)) return -ENOENT;
  if (!begin_change("unlink", directory->entries[name]->id, directory->id, 0)) return -EIO;
  directory->entries.erase(name);
  directory->pending_entries.push_back({name, {}, nullptr});
  return 0;
}

Status SimDisk::list(int at, const char* path,
                     const std::function<Status(const std::string&, unsigned char)>& visit) {
  if (dead_) return fail(Code::kIo, "list");
  std::string name;
  InodePtr directory = walk(at, path, name);
  if (directory != nullptr && name != ".") {
    const auto found = directory->entries.find(name);
    directory = found == directory->entries.end() ? nullptr : found->second;
  }
  if (directory == nullptr) return fail(Code::kIo, std::string("list: no ") + path);
  const auto entries = directory->entries;
  for (const auto& [entry, inode] : entries) {
    BASALT_CHECK_OK(visit(entry, inode->directory ? DT_DIR : DT_REG));
  }
  return {};
}

int SimDisk::space(int, Space& space) {
  if (dead_) return -EIO;
  space.bytes = capacity_bytes;
  const uint64_t used = used_bytes();
  space.free_bytes = used < capacity_bytes ? capacity_bytes - used : 0;
  return 0;
}

void SimDisk::collect(const InodePtr& inode, std::map<uint64_t, InodePtr>& all) const {
  if (inode == nullptr || !all.emplace(inode->id, inode).second) return;
  for (const auto& [name, entry] : inode->entries) collect(entry, all);
  for (const auto& [name, entry] : inode->durable_entries) collect(entry, all);
  for (const EntryChange& change : inode->pending_entries) collect(change.inode, all);
}

std::map<uint64_t, SimDisk::InodePtr> SimDisk::all_inodes() const {
  std::map<uint64_t, InodePtr> all;
  collect(top_, all);
  for (const auto& [fd, open] : open_) collect(open.inode, all);
  return all;
}

// What programs see: files with a name, and open ones without.
uint64_t SimDisk::used_bytes() const {
  uint64_t pages = 0;
  std::set<uint64_t> seen;
  const std::function<void(const Inode&)> add = [&](const Inode& inode) {
    if (!seen.insert(inode.id).second) return;
    pages += inode.seen.slots.size();
    for (const auto& [name, entry] : inode.entries) add(*entry);
  };
  add(*top_);
  for (const auto& [fd, open] : open_) add(*open.inode);
  return pages * kPage;
}

void SimDisk::crash() {
  if (dead_) return;
  trace_.event("crash");
  crash_in_ = 0;
  for (auto& [inode, change] : pick_in_flight()) inode->pending.push_back(std::move(change));
  late_.clear();
  for (const auto& [id, inode] : all_inodes()) {
    pick_part(inode->pending, inode->durable, false);
    const uint64_t mode = chance_.below(3);
    for (const EntryChange& change : inode->pending_entries) {
      if (mode == 0 || (mode == 2 && chance_.happens(0.5))) continue;
      if (!change.remove.empty()) inode->durable_entries.erase(change.remove);
      if (!change.add.empty()) inode->durable_entries[change.add] = change.inode;
    }
    inode->pending_entries.clear();
  }
  dead_ = true;
}

void SimDisk::kill() {
  if (dead_) return;
  trace_.event("kill");
  crash_in_ = 0;
  for (const auto& [id, inode] : all_inodes()) {
    inode->durable = inode->seen;
    inode->pending.clear();
    inode->durable_entries = inode->entries;
    inode->pending_entries.clear();
  }
  for (auto& [inode, change] : pick_in_flight()) {
    late_.push_back({inode, std::move(change), chance_.below(kLateCallsMax)});
  }
  dead_ = true;
}

bool SimDisk::writing() const {
  std::vector<InFlight> writes;
  in_flight(writes);
  return !writes.empty();
}

std::vector<std::pair<SimDisk::InodePtr, SimDisk::Change>> SimDisk::pick_in_flight() {
  std::vector<InFlight> writes;
  if (in_flight) in_flight(writes);
  std::vector<std::pair<InodePtr, Change>> picked;
  for (const InFlight& write : writes) {
    const InodePtr inode = inode_of(write.fd);
    if (inode == nullptr || chance_.happens(0.5)) continue;
    Change change{.kind = Change::Kind::kWrite,
                  .first_page = write.offset / kPage,
                  .size = write.offset + write.bytes.size()};
    for (uint64_t at = 0; at < write.bytes.size(); at += kPage) {
      auto page = std::make_shared<Page>();
      std::memcpy(page->data(), write.bytes.data() + at, kPage);
      change.pages.push_back(std::move(page));
    }
    picked.emplace_back(inode, std::move(change));
  }
  return picked;
}

void SimDisk::land(const InodePtr& inode, const Change& change) {
  trace_.event("late write", inode->id, change.first_page, change.pages.size());
  apply(inode->seen, change);
  inode->pending.push_back(change);
}

// What is due now, or all of one file.
void SimDisk::land_late(const Inode* all_of) {
  for (auto it = late_.begin(); it != late_.end();) {
    const bool due = all_of != nullptr ? it->inode.get() == all_of : it->calls-- == 0;
    if (due) land(it->inode, it->change);
    it = due ? late_.erase(it) : std::next(it);
  }
}

void SimDisk::land_late_writes() {
  for (const LateWrite& write : late_) land(write.inode, write.change);
  late_.clear();
}

void SimDisk::restart() {
  BASALT_CHECK(dead_);
  dead_ = false;
  failed_write_ = false;
  crash_in_ = 0;
  open_.clear();
  for (const auto& [id, inode] : all_inodes()) {
    inode->seen = inode->durable;
    inode->entries = inode->durable_entries;
    inode->locked_by = -1;
    std::erase_if(inode->unreadable,
                  [&](uint64_t sector) { return sector * kSector >= inode->seen.size; });
  }
}

void SimDisk::close_all() {
  for (auto& [fd, open] : open_) open.inode->locked_by = -1;
  open_.clear();
  failed_write_ = false;
}

std::vector<std::string> SimDisk::files(const std::string& directory) const {
  std::vector<std::string> names;
  const std::function<void(const Inode&, const std::string&)> walk_down =
      [&](const Inode& inode, const std::string& path) {
        for (const auto& [name, entry] : inode.entries) {
          if (entry->directory) {
            walk_down(*entry, path + "/" + name);
          } else {
            names.push_back(path + "/" + name);
          }
        }
      };
  const auto root = top_->entries.find("data");
  if (root == top_->entries.end()) return names;
  const auto found = root->second->entries.find(directory);
  if (found != root->second->entries.end()) walk_down(*found->second, directory);
  return names;
}

SimDisk::InodePtr SimDisk::find(const std::string& path) {
  std::string name;
  open_[-7] = {top_->entries.at("data"), false};
  const InodePtr directory = walk(-7, path, name);
  open_.erase(-7);
  if (directory == nullptr || !directory->entries.contains(name)) return nullptr;
  return directory->entries[name];
}

bool SimDisk::make_unreadable(const std::string& path, uint64_t offset) {
  const InodePtr found = find(path);
  if (found == nullptr) return false;
  Inode& inode = *found;
  if (offset >= inode.seen.size) return false;
  trace_.event("sector goes bad", inode.id, offset / kSector);
  inode.unreadable.insert(offset / kSector);
  return true;
}

bool SimDisk::damage(const std::string& path, uint64_t offset, uint64_t length) {
  const InodePtr found = find(path);
  if (found == nullptr) return false;
  Inode& inode = *found;
  if (length == 0 || offset + length > inode.seen.size) return false;
  const uint64_t first = offset / kPage;
  const uint64_t last = (offset + length - 1) / kPage;
  const uint64_t mode = chance_.below(4);
  trace_.event("damage", inode.id, offset, length, mode);
  for (Content* content : {&inode.seen, &inode.durable}) {
    if (content->slots.size() <= last) continue;
    if (mode == 1 && first != last) {  // a block's write went to its neighbour
      std::swap(content->slots[first], content->slots[last]);
      continue;
    }
    Slot& slot = content->slots[first];
    auto page = std::make_shared<Page>();
    if (mode != 2 && slot.page != nullptr) *page = *slot.page;  // mode 2: the write was lost
    if (mode != 2) (*page)[offset % kPage] ^= static_cast<uint8_t>(1u << (offset % 8));
    slot.page = std::move(page);
  }
  return true;
}

bool SimDisk::misdirect(const Part& from, const Part& to) {
  const InodePtr source = find(from.path), target = find(to.path);
  if (source == nullptr || from.offset + from.length > source->seen.size) return false;
  if (target == nullptr || to.offset + to.length > target->seen.size) return false;
  const uint64_t from_page = from.offset / kPage, to_page = to.offset / kPage;
  const bool zeros = chance_.happens(0.5);  // else there was something of an earlier life
  const auto page_of = [](const Content& content, uint64_t number) {
    const PagePtr& page = content.slots[number].page;
    return page != nullptr ? *page : Page{};
  };
  // The page `over` with the bytes of `with` in that part.
  const auto patched = [](const Page& over, const Page& with, const Part& part) {
    auto page = std::make_shared<Page>(over);
    std::memcpy(page->data() + part.offset % kPage, with.data() + part.offset % kPage, part.length);
    return page;
  };
  for (auto content : {&Inode::seen, &Inode::durable}) {
    Content &at = (*source).*content, &landed = (*target).*content;
    if (at.slots.size() <= from_page || landed.slots.size() <= to_page) continue;
    const Page written = page_of(at, from_page), overwritten = page_of(landed, to_page);
    auto lost = patched(written, zeros ? Page{} : overwritten, from);
    auto wrong = patched(overwritten, written, to);
    if (content == &Inode::seen) {
      if (*lost == written || *wrong == overwritten) return false;
      trace_.event("misdirected write", source->id, from.offset, target->id, to.offset);
    }
    at.slots[from_page].page = std::move(lost);
    landed.slots[to_page].page = std::move(wrong);
  }
  return true;
}

void SimDisk::heal() {
  for (const auto& [id, inode] : all_inodes()) inode->unreadable.clear();
}

}  // namespace basalt::sim
