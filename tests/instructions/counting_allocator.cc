// The functions of the C and C++ libraries, counted and handed to mimalloc, which is what basaltd
// uses. The program's own definitions win over those of every shared library it loads.
#include "tests/instructions/counting_allocator.h"

#include <mimalloc.h>

#include <cerrno>
#include <cstddef>
#include <new>

namespace basalt::instructions {

namespace {
// initial-exec: no allocation behind the allocator's back when a thread first counts.
__attribute__((tls_model("initial-exec"))) thread_local uint64_t allocations = 0;
}  // namespace

uint64_t allocations_of_this_thread() { return allocations; }

}  // namespace basalt::instructions

using basalt::instructions::allocations;

extern "C" {

void* malloc(size_t size) {
  ++allocations;
  return mi_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++allocations;
  return mi_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  ++allocations;
  return mi_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++allocations;
  return mi_aligned_alloc(alignment, size);
}
void* memalign(size_t alignment, size_t size) {
  ++allocations;
  return mi_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  ++allocations;
  return mi_posix_memalign(out, alignment, size);
}
void free(void* memory) { mi_free(memory); }

}  // extern "C"

void* operator new(size_t size) {
  ++allocations;
  return mi_new(size);
}
void* operator new[](size_t size) {
  ++allocations;
  return mi_new(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  return mi_new_aligned(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  ++allocations;
  return mi_new_aligned(size, static_cast<size_t>(alignment));
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return mi_new_nothrow(size);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return mi_new_nothrow(size);
}
void operator delete(void* memory) noexcept { mi_free(memory); }
void operator delete[](void* memory) noexcept { mi_free(memory); }
void operator delete(void* memory, size_t) noexcept { mi_free(memory); }
void operator delete[](void* memory, size_t) noexcept { mi_free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { mi_free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { mi_free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { mi_free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { mi_free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { mi_free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { mi_free(memory); }
