#include "base/block_pool.h"

#include <array>

namespace basalt {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BASALT_BLOCKS_FROM_NEW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define BASALT_BLOCKS_FROM_NEW 1
#endif
#endif

#if !defined(BASALT_BLOCKS_FROM_NEW)

constexpr size_t kStepBytes = 64;
constexpr size_t kLists = kBlockBytesMax / kStepBytes;

struct Free {
  Free* next;
};

struct Lists {
  std::array<Free*, kLists> first{};
  size_t kept_bytes = 0;
  size_t kept_bytes_max = kBlocksKeptBytesMax;

  ~Lists() {
    kept_bytes_max = 0;  // objects that outlive the thread's lists free their blocks themselves
    for (Free*& list : first) {
      while (list != nullptr) ::operator delete(std::exchange(list, list->next));
    }
    kept_bytes = 0;
  }
};
constinit thread_local Lists lists;

size_t list_of(size_t bytes) { return bytes == 0 ? 0 : (bytes - 1) / kStepBytes; }
size_t rounded(size_t list) { return (list + 1) * kStepBytes; }

#endif

}  // namespace

#if defined(BASALT_BLOCKS_FROM_NEW)

void* take_block(size_t bytes) { return ::operator new(bytes); }
void give_block(void* block, size_t) noexcept { ::operator delete(block); }
size_t block_bytes_kept() { return 0; }

#else

void* take_block(size_t bytes) {
  if (bytes > kBlockBytesMax) return ::operator new(bytes);
  const size_t list = list_of(bytes);
  Lists& mine = lists;
  Free* block = mine.first[list];
  if (block == nullptr) return ::operator new(rounded(list));
  mine.first[list] = block->next;
  mine.kept_bytes -= rounded(list);
  return block;
}

void give_block(void* block, size_t bytes) noexcept {
  const size_t list = list_of(bytes);
  Lists& mine = lists;
  if (bytes > kBlockBytesMax || mine.kept_bytes + rounded(list) > mine.kept_bytes_max) {
    ::operator delete(block);
    return;
  }
  auto* free = static_cast<Free*>(block);
  free->next = mine.first[list];
  mine.first[list] = free;
  mine.kept_bytes += rounded(list);
}

size_t block_bytes_kept() { return lists.kept_bytes; }

#endif

}  // namespace basalt
