// A disk after a power cut: crash_state_disk IMAGE LOG DIRECTORY
//
// IMAGE is a copy of the image as it was before the recording began; LOG is the recording. Writing
// "U SEED MODE" to DIRECTORY/state makes DIRECTORY/disk what a disk may hold if power is lost at
// entry U: all that a flush before U covers, and of the other writes that had arrived by then those
// that SEED and MODE choose, some of them torn at 512 bytes. U may not go back. What is written to
// the disk afterwards (by a mount, by a recovery) is kept in memory and forgotten with the next
// state, so a state costs no copy of the image. DIRECTORY/state reads as what was done.
//
// MODE: none  no write that is not flushed      all   every one, whole
//       tail  every one, the last of them torn
//       half  each with probability 1/2, of those one in two torn; few: 1/8; most: 7/8
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/crash/disk_log.h"
#include "tests/crash/fuse_disk.h"

namespace basalt::crash {
namespace {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kSectorBytes = 512;
// Requests in flight at one time are few; those that arrived before U and ended after it are found
// so far behind U.
constexpr uint64_t kInFlightEntriesMax = 256;

// Its own generator, so that a seed means the same state with every library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {  // splitmix64
    uint64_t value = state_ += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
  }
  uint64_t below(uint64_t bound) { return next() % bound; }

 private:
  uint64_t state_;
};

class StateDisk final : public FuseDisk {
 public:
  StateDisk(int image, int log) : image_(image), log_(log) {
    size_ = static_cast<uint64_t>(::lseek(image_, 0, SEEK_END));
  }

  bool load() {
    const auto end = static_cast<uint64_t>(::lseek(log_, 0, SEEK_END));
    for (uint64_t at = 0; at + sizeof(EntryHeader) <= end;) {
      Entry entry;
      if (::pread(log_, &entry.header, sizeof entry.header, static_cast<off_t>(at)) !=
          sizeof entry.header)
        return false;
      entry.data = at + sizeof(EntryHeader);
      at = entry.data + (entry.header.type == EntryType::kWrite ? entry.header.length : 0);
      if (at > end) break;  // the recorder was killed within it: never answered
      if (entry.header.number != entries_.size()) return false;
      entries_.push_back(entry);
    }
    report_ = "entries=" + std::to_string(entries_.size()) + "\n";
    return true;
  }

  uint64_t size() const override { return size_; }

  int read(uint8_t* out, uint64_t length, uint64_t offset) override {
    const std::lock_guard lock(mutex_);
    if (offset >= size_) return 0;
    length = std::min(length, size_ - offset);
    if (::pread(image_, out, length, static_cast<off_t>(offset)) != static_cast<ssize_t>(length))
      return -EIO;
    for_each_block(offset, length,
                   [&](uint64_t block, uint64_t in_block, uint64_t at, uint64_t count) {
                     if (auto found = overlay_.find(block); found != overlay_.end()) {
                       std::memcpy(out + at, found->second->data() + in_block, count);
                     }
                   });
    return static_cast<int>(length);
  }

  int write(const uint8_t* data, uint64_t length, uint64_t offset) override {
    const std::lock_guard lock(mutex_);
    return put(data, length, offset) ? static_cast<int>(length) : -EIO;
  }

  int flush() override { return 0; }
  const char* text_name() const override { return "state"; }
  std::string text() override {
    const std::lock_guard lock(mutex_);
    return report_;
  }

  int command(const std::string& line) override {
    uint64_t until = 0, seed = 0;
    char mode[16] = {};
    if (std::sscanf(line.c_str(), "%" SCNu64 " %" SCNu64 " %15s", &until, &seed, mode) != 3)
      return -EINVAL;
    const std::lock_guard lock(mutex_);
    return make_state(std::min<uint64_t>(until, entries_.size()), seed, mode);
  }

 private:
  using Block = std::array<uint8_t, kBlockBytes>;
  struct Entry {
    EntryHeader header;
    uint64_t data = 0;  // where its bytes are in the log
  };

  template <class Visit>
  static void for_each_block(uint64_t offset, uint64_t length, Visit visit) {
    for (uint64_t at = 0; at < length;) {
      const uint64_t in_block = (offset + at) % kBlockBytes;
      const uint64_t count = std::min(kBlockBytes - in_block, length - at);
      visit((offset + at) / kBlockBytes, in_block, at, count);
      at += count;
    }
  }

  bool put(const uint8_t* data, uint64_t length, uint64_t offset) {
    bool good = offset + length <= size_;
    if (!good) return false;
    for_each_block(offset, length,
                   [&](uint64_t block, uint64_t in_block, uint64_t at, uint64_t count) {
                     std::unique_ptr<Block>& copy = overlay_[block];
                     if (copy == nullptr) {
                       copy = std::make_unique<Block>();
                       if (count != kBlockBytes) {
                         good &= ::pread(image_, copy->data(), kBlockBytes,
                                         static_cast<off_t>(block * kBlockBytes)) ==
                                 static_cast<ssize_t>(kBlockBytes);
                       }
                     }
                     std::memcpy(copy->data() + in_block, data + at, count);
                   });
    return good;
  }

  bool bytes_of(const Entry& entry) {
    buffer_.assign(entry.header.length, 0);
    if (entry.header.type == EntryType::kZeros) return true;
    return ::pread(log_, buffer_.data(), buffer_.size(), static_cast<off_t>(entry.data)) ==
           static_cast<ssize_t>(buffer_.size());
  }

  int make_state(uint64_t until, uint64_t seed, const std::string& mode) {
    uint64_t keep = 0;  // of eight
    if (mode == "half") {
      keep = 4;
    } else if (mode == "few") {
      keep = 1;
    } else if (mode == "most") {
      keep = 7;
    } else if (mode == "all" || mode == "tail") {
      keep = 8;
    } else if (mode != "none") {
      return -EINVAL;
    }
    overlay_.clear();
    uint64_t flushed = 0;
    for (uint64_t i = 0; i < until; ++i) {
      if (entries_[i].header.type == EntryType::kFlush)
        flushed = std::max(flushed, entries_[i].header.arrived);
    }
    if (flushed < applied_) return -ESPIPE;
    for (; applied_ < flushed; ++applied_) {
      const Entry& entry = entries_[applied_];
      if (entry.header.type == EntryType::kFlush) continue;
      if (!bytes_of(entry)) return -EIO;
      if (::pwrite(image_, buffer_.data(), buffer_.size(),
                   static_cast<off_t>(entry.header.offset)) !=
          static_cast<ssize_t>(buffer_.size())) {
        return -EIO;
      }
    }
    Random random(seed);
    std::vector<const Entry*> open;
    const uint64_t end = std::min<uint64_t>(entries_.size(), until + kInFlightEntriesMax);
    for (uint64_t i = flushed; i < end; ++i) {
      const Entry& entry = entries_[i];
      if (entry.header.type == EntryType::kFlush || (i >= until && entry.header.arrived > until))
        continue;
      open.push_back(&entry);
    }
    uint64_t kept = 0, torn = 0;
    for (const Entry* entry : open) {
      if (random.below(8) >= keep) continue;
      ++kept;
      if (!bytes_of(*entry)) return -EIO;
      const bool tear = mode == "tail" ? entry == open.back() : keep != 8 && random.below(2) == 0;
      if (tear ? !put_torn(*entry, random)
               : !put(buffer_.data(), buffer_.size(), entry->header.offset))
        return -EIO;
      torn += tear ? 1 : 0;
    }
    char text[160];
    std::snprintf(text, sizeof text,
                  "entries=%zu until=%" PRIu64 " flushed=%" PRIu64 " open=%zu kept=%" PRIu64
                  " torn=%" PRIu64 "\n",
                  entries_.size(), until, flushed, open.size(), kept, torn);
    report_ = text;
    return 0;
  }

  // A front part, a back part, or any of its sectors.
  bool put_torn(const Entry& entry, Random& random) {
    const uint64_t sectors = entry.header.length / kSectorBytes;
    const uint64_t way = random.below(3);
    const uint64_t cut = sectors == 0 ? 0 : random.below(sectors + 1);
    for (uint64_t sector = 0; sector < sectors; ++sector) {
      const bool here = way == 0 ? sector < cut : way == 1 ? sector >= cut : random.below(2) == 0;
      if (here && !put(buffer_.data() + sector * kSectorBytes, kSectorBytes,
                       entry.header.offset + sector * kSectorBytes)) {
        return false;
      }
    }
    return true;
  }

  const int image_;
  const int log_;
  uint64_t size_ = 0;
  std::vector<Entry> entries_;
  std::mutex mutex_;
  uint64_t applied_ = 0;  // entries before it are in the image
  std::unordered_map<uint64_t, std::unique_ptr<Block>> overlay_;
  std::vector<uint8_t> buffer_;
  std::string report_;
};

}  // namespace
}  // namespace basalt::crash

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("crash_state_disk IMAGE LOG DIRECTORY\n", stderr);
    return 2;
  }
  const int image = ::open(argv[1], O_RDWR | O_CLOEXEC);
  const int log = ::open(argv[2], O_RDONLY | O_CLOEXEC);
  if (image < 0 || log < 0) {
    std::perror("crash_state_disk");
    return 1;
  }
  basalt::crash::StateDisk disk(image, log);
  if (!disk.load()) {
    std::fputs("crash_state_disk: the log is damaged\n", stderr);
    return 1;
  }
  return basalt::crash::serve(disk, argv[0], argv[3]);
}
