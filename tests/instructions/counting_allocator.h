// How often the program asked for memory: every malloc, calloc, realloc, aligned allocation and
// operator new of all libraries in the process, of the calling thread.
#pragma once

#include <cstdint>

namespace basalt::instructions {

uint64_t allocations_of_this_thread();

}  // namespace basalt::instructions
