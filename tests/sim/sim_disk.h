// SimDisk: a disk with a file system that keeps, beside what programs see, what a loss of power
// would leave.
//
// A write is pending until a sync of its file; an entry of a directory (creation, removal, rename)
// until a sync of the directory. crash() keeps a part of what is pending, chosen by the seed:
// nothing, everything, or a subset, with pages torn at 512 bytes; what was synced stays. After it
// every call fails with EIO until restart(). A failed sync forgets what it could not write (as
// Linux does: the pages count as clean, and no later sync writes them). Descriptors are numbers of
// its own, so that a call that goes round the interface fails. What io_uring had handed to the disk
// when its process was killed may reach it later, under the next process: until then nothing waits
// for it but a call that changes the file's extents.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "storage/disk.h"
#include "tests/sim/chance.h"

namespace basalt::sim {

// Probabilities per call.
struct DiskFaults {
  double write_error = 0;  // EIO; a part may be written
  double sync_error = 0;   // EIO; what was pending may be lost for ever
  double read_error = 0;   // EIO, once
  double short_transfer = 0;
  double interrupted = 0;  // EINTR, EAGAIN
  double allocate_unsupported = 0;
};

class SimDisk final : public storage::Disk {
 public:
  SimDisk(Chance& chance, Trace& trace, std::string root, uint64_t capacity_bytes);

  // --- Disk
  int open(int at, const char* path, int flags) override;
  void close(int fd) override;
  int64_t read(int fd, MutableBytes out, uint64_t offset) override;
  int64_t write(int fd, Bytes bytes, uint64_t offset) override;
  int sync(int fd) override;
  int data_sync(int fd) override { return sync(fd); }
  int allocate(int fd, uint64_t size) override;
  int truncate(int fd, uint64_t size) override;
  int64_t seek(int fd, uint64_t offset, int whence) override;
  int64_t size(int fd) override;
  int advise(int, int) override { return 0; }
  int lock(int fd) override;
  int make_directory(int at, const char* path) override;
  int rename(int at, const char* from, const char* to) override;
  int unlink(int at, const char* path) override;
  Status list(int at, const char* path,
              const std::function<Status(const std::string&, unsigned char)>& visit) override;
  int space(int fd, Space& space) override;
  int64_t read_resident(int fd, MutableBytes out, uint64_t offset) override;
  int64_t resident_pages(int fd, uint64_t offset, uint64_t length) override;

  // --- The simulation's
  DiskFaults faults;
  bool direct_io = true;  // else O_DIRECT is refused with EINVAL
  double resident = 0.5;  // probability that a read needs no I/O
  uint64_t capacity_bytes = 0;

  // Writes that were handed to Io and have not begun: a part of them is on the disk when power
  // fails, or comes late.
  struct InFlight {
    int fd;
    Bytes bytes;
    uint64_t offset;
  };
  std::function<void(std::vector<InFlight>&)> in_flight;
  bool writing() const;  // there are such writes

  // Power fails now, or at the n-th call from now that changes anything (in the middle of it).
  void crash();
  // The process ends and the machine goes on: all that was written is there; of what was on its way
  // a part comes late.
  void kill();
  void crash_after(uint64_t calls) { crash_in_ = calls + 1; }
  void cancel_crash() { crash_in_ = 0; }
  bool dead() const { return dead_; }
  // The machine comes back: everything is as the crash left it; nothing is open.
  void restart();
  // As after a clean end of the process: nothing is lost, nothing is open.
  void close_all();

  // Of what a kill left under way some is not on the disk yet; now it is.
  bool writes_come_late() const { return !late_.empty(); }
  void land_late_writes();

  bool failed_write() const { return failed_write_; }  // an error was injected since restart()
  uint64_t injected_read_errors() const { return read_errors_; }
  uint64_t used_bytes() const;
  std::vector<std::string> files(const std::string& directory) const;  // recursively, of the root
  // Damage at rest, in what was synced: sectors that cannot be read; bytes that changed. False: no
  // such place.
  bool make_unreadable(const std::string& path, uint64_t offset);
  bool damage(const std::string& path, uint64_t offset, uint64_t length);
  // A page was written to another place: it lies at `to`, and at `from`, where it belongs, is what
  // was there before. Each is a part of one page; what is beside it keeps its bytes. False: no such
  // place, or the bytes there would not change.
  struct Part {
    std::string path;
    uint64_t offset, length;
  };
  bool misdirect(const Part& from, const Part& to);
  void heal();  // unreadable sectors are readable again

 private:
  static constexpr uint64_t kPage = 4096;
  static constexpr uint64_t kSector = 512;
  using Page = std::array<uint8_t, kPage>;
  using PagePtr = std::shared_ptr<const Page>;  // null: zeros
  struct Slot {
    PagePtr page;
    bool written = false;  // else a hole, or allocated only
  };
  struct Content {
    std::vector<Slot> slots;
    uint64_t size = 0;
    void resize(uint64_t bytes);
  };
  struct Change {
    enum class Kind : uint8_t { kWrite, kGrow, kTruncate } kind;
    uint64_t first_page = 0;
    std::vector<PagePtr> pages;
    uint64_t size = 0;
  };
  struct Inode;
  using InodePtr = std::shared_ptr<Inode>;
  struct EntryChange {
    std::string remove;  // may be empty
    std::string add;
    InodePtr inode;
  };
  struct Inode {
    uint64_t id = 0;
    bool directory = false;
    int locked_by = -1;
    Content seen, durable;
    std::vector<Change> pending;
    std::set<uint64_t> unreadable;  // sectors
    std::map<std::string, InodePtr> entries, durable_entries;
    std::vector<EntryChange> pending_entries;
  };
  struct LateWrite {
    InodePtr inode;
    Change change;
    uint64_t calls;  // that go before it
  };
  struct Open {
    InodePtr inode;
    bool error = false;  // another descriptor's sync failed: the next one here says so too
    bool direct = false;
  };

  InodePtr make_inode(bool directory);
  InodePtr inode_of(int fd) const;
  // The directory that holds `path` and the last name; null if a part is missing.
  InodePtr walk(int at, const std::string& path, std::string& name) const;
  InodePtr find(const std::string& path);  // a file of the data directory, or null
  bool begin_change(const char* what, uint64_t inode, uint64_t a, uint64_t b);  // false: dead
  static void apply(Content& content, const Change& change);
  void apply_torn(Content& content, const Change& change);
  // Some of what is on its way now.
  std::vector<std::pair<InodePtr, Change>> pick_in_flight();
  void land(const InodePtr& inode, const Change& change);
  void land_late(const Inode* all_of = nullptr);
  void collect(const InodePtr& inode, std::map<uint64_t, InodePtr>& all) const;
  std::map<uint64_t, InodePtr> all_inodes() const;
  void pick_part(std::vector<Change>& pending, Content& content, bool failed_sync);

  Chance& chance_;
  Trace& trace_;
  const std::string root_path_;
  InodePtr top_;  // its only entry is the data directory, "data"
  std::map<int, Open> open_;
  std::vector<LateWrite> late_;
  int next_fd_ = 1 << 20;
  uint64_t next_inode_ = 1;
  uint64_t crash_in_ = 0;
  bool dead_ = false;
  bool failed_write_ = false;
  uint64_t read_errors_ = 0;
};

}  // namespace basalt::sim
