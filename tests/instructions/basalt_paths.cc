// basalt-paths: runs the hottest paths of the server in one thread, the same way every time.
//
//   basalt-paths prepare DIR              makes a data directory with the objects that are read
//   basalt-paths run DIR [PATH...]        each path 3 times: warm-up, N requests, 2 N requests
//
// run prints JSON: for each path its N and the heap allocations of one request. Under callgrind
// with
// --dump-before=basalt_paths_mark each of the calls of basalt_paths_mark() ends a part of the
// profile, in the order of "parts"; (part 2N - part N) / N is what one request costs.
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/digest.h"
#include "base/check.h"
#include "base/log.h"
#include "bench/paths/world.h"
#include "protocol/http/head.h"
#include "tests/instructions/counting_allocator.h"

// A name that callgrind can wait for.
extern "C" __attribute__((noinline, used)) void basalt_paths_mark() {
  asm volatile("" ::: "memory");
}

namespace basalt::instructions {
namespace {

using bench::World;

constexpr int kObjects = 64;
constexpr int kListed = 1000;
constexpr size_t kBodyBytes = 4096;

std::string object_path(int number) { return fmt::format("/bucket/objects/{:016x}", number); }

struct Path {
  std::string_view name;
  int count;  // N
  std::function<void(World&, int)> request;
};

void expect(int status, int wanted, std::string_view what) {
  if (status == wanted) return;
  fmt::print(stderr, "basalt-paths: {}: status {} instead of {}\n", what, status, wanted);
  std::exit(1);
}

int prepare(const std::string& directory) {
  auto opened = World::open(directory);
  if (!opened) {
    fmt::print(stderr, "basalt-paths: {}: {}\n", directory, opened.error().detail);
    return 1;
  }
  World& world = **opened;
  expect(world.ask(world.request("PUT", "/bucket")), 200, "CreateBucket");
  expect(world.ask(world.request("PUT", "/listed")), 200, "CreateBucket");
  const std::string body(kBodyBytes, 'b');
  for (int i = 0; i < kObjects; ++i) {
    expect(world.ask(world.request("PUT", object_path(i), {}, body)), 200, "PutObject");
  }
  for (int i = 0; i < kListed; ++i) {
    const std::string path = fmt::format("/listed/some/folder/{:016x}", i * 0x9e3779b97f4a7c15);
    expect(world.ask(world.request("PUT", path, {}, "x")), 200, "PutObject");
  }
  return 0;
}

// Requests that were made before the counting starts.
std::vector<std::string> all_of(const World& world, std::string_view method,
                                std::string_view body) {
  std::vector<std::string> requests;
  for (int i = 0; i < kObjects; ++i) {
    requests.push_back(world.request(method, object_path(i), {}, body));
  }
  return requests;
}

std::vector<Path> make_paths(World& world) {
  static const std::string body(kBodyBytes, 'c');
  static const auto gets = all_of(world, "GET", {});
  static const auto heads = all_of(world, "HEAD", {});
  static const auto puts = all_of(world, "PUT", body);
  static const std::string list =
      world.request("GET", "/listed", "list-type=2&max-keys=1000&prefix=some%2Ffolder%2F");
  static http::RequestHead head;
  static std::vector<auth::HeaderView> views;

  // What is counted has to be the right thing: a listing of all keys, an object with its bytes.
  std::string text;
  expect(world.ask(list, text), 200, "ListObjectsV2");
  BASALT_CHECK(text.find(fmt::format("<KeyCount>{}</KeyCount>", kListed)) != std::string::npos);
  expect(world.ask(gets[1], text), 200, "GetObject");
  BASALT_CHECK(text.ends_with(std::string(kBodyBytes, 'b')));

  return {
      {"get_4k", 200, [](World& w, int i) { expect(w.ask(gets[i % kObjects]), 200, "GetObject"); }},
      {"head", 200, [](World& w, int i) { expect(w.ask(heads[i % kObjects]), 200, "HeadObject"); }},
      {"list_1000", 10, [](World& w, int) { expect(w.ask(list), 200, "ListObjectsV2"); }},
      {"verify", 500,
       [](World& w, int i) {
         const std::string& request = gets[i % kObjects];
         head.clear();
         BASALT_CHECK(http::parse_request_head(as_bytes(request), 0, head).status ==
                      http::HeadStatus::kComplete);
         views.clear();  // as the dispatcher does, which keeps its memory
         for (const auto& field : head.fields) views.push_back({field.name, field.value});
         const auth::RequestView view{"GET", head.path, head.query, views};
         BASALT_CHECK(w.gate().authenticate(view, World::kNowMs).has_value());
       }},
      // Last: its records wait in memory for a checkpoint that does not come, and would be in the
      // way of the others.
      {"put_4k", 200, [](World& w, int i) { expect(w.ask(puts[i % kObjects]), 200, "PutObject"); }},
  };
}

// As the processor (or valgrind, which imitates a simpler one) reports it: libraries choose their
// code by it.
std::string cpu_features() {
  std::string text;
  const auto add = [&](bool has, std::string_view name) {
    if (has) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", name);
  };
  add(__builtin_cpu_supports("sse4.2"), "sse4.2");
  add(__builtin_cpu_supports("pclmul"), "pclmul");
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("bmi2"), "bmi2");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  return text;
}

int run(const std::string& directory, const std::vector<std::string_view>& wanted) {
  auto opened = World::open(directory);
  if (!opened) {
    fmt::print(stderr, "basalt-paths: {}: {}\n", directory, opened.error().detail);
    return 1;
  }
  World& world = **opened;
  const std::vector<Path> paths = make_paths(world);
  std::string parts, rows;
  for (const Path& path : paths) {
    if (!wanted.empty() && std::ranges::find(wanted, path.name) == wanted.end()) continue;
    // Long enough for every buffer to have grown to its size, and every object to be visited once.
    for (int i = 0; i < kObjects; ++i) path.request(world, i);
    basalt_paths_mark();
    const uint64_t before = allocations_of_this_thread();
    for (int i = 0; i < path.count; ++i) path.request(world, i);
    const uint64_t allocations = allocations_of_this_thread() - before;
    basalt_paths_mark();
    for (int i = 0; i < 2 * path.count; ++i) path.request(world, i);
    basalt_paths_mark();
    parts += fmt::format("{1}\"{0} start\", \"{0} N\", \"{0} 2N\"", path.name,
                         parts.empty() ? "" : ", ");
    rows += fmt::format("{}\n  \"{}\": {{\"count\": {}, \"allocations\": {:.2f}}}",
                        rows.empty() ? "" : ",", path.name, path.count,
                        static_cast<double>(allocations) / path.count);
  }
  fmt::print("{{\"compiler\": \"{}\", \"cpu\": [{}],\n \"parts\": [{}],\n \"paths\": {{{}}}}}\n",
             __VERSION__, cpu_features(), parts, rows);
  return 0;
}

}  // namespace
}  // namespace basalt::instructions

int main(int argc, char** argv) {
  basalt::set_log_level(basalt::LogLevel::kWarn);
  const std::string_view command = argc > 2 ? argv[1] : "";
  if (command == "prepare" && argc == 3) return basalt::instructions::prepare(argv[2]);
  if (command == "run") {
    return basalt::instructions::run(argv[2], std::vector<std::string_view>(argv + 3, argv + argc));
  }
  fmt::print(stderr, "basalt-paths prepare DIR | run DIR [PATH...]\n");
  return 2;
}
