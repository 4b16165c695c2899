// Work that nobody waits for.
#pragma once

namespace basalt::storage {

// The calling thread goes last in line for the processor (nice 19) and the disk (idle I/O class).
void lower_priority();

}  // namespace basalt::storage
