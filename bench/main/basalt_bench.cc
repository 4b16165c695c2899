// basalt-bench: a load generator for any S3 endpoint. See docs/benchmarking.md.
#include "bench/command_line.h"

int main(int argc, char** argv) { return basalt::bench::main(argc, argv); }
