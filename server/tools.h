// The offline commands of basaltd: fsck, rebuild-index, backup verify, backup restore. Each prints
// what it found (with
// --json one object) and returns its exit status: 0 nothing wrong (or repaired and named), 1
// damage, 2 it could not run.
#pragma once

#include <optional>

namespace basalt::server {

// Nothing: the command line names none of them.
std::optional<int> run_tool(int argc, const char* const* argv);

}  // namespace basalt::server
