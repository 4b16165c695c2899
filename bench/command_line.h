// The command line of basalt-bench: `run`, `compare` and `plot`.
#pragma once

namespace basalt::bench {

// Exit status: 0 done, 1 an operation failed or was unfinished (or bytes differed), 2 the command
// could not be carried out.
int main(int argc, char** argv);

}  // namespace basalt::bench
