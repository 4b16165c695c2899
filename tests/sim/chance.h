// Chance: the only source of choice in a simulated run. Trace: what happened, as a hash over
// everything and the last events in words.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string_view>

#include "storage/platform.h"

namespace basalt::sim {

class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) { next(); }
  uint64_t next() {  // splitmix64
    uint64_t value = state_ += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
  }
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool happens(double probability) {
    return probability > 0 && static_cast<double>(next() >> 11) * 0x1.0p-53 < probability;
  }

 private:
  uint64_t state_;
};

class Trace {
 public:
  void event(std::string_view what, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0,
             uint64_t d = 0) {
    for (const char letter : what) mix(static_cast<uint8_t>(letter));
    for (const uint64_t number : {a, b, c, d}) mix(number);
    ++tally_[what];
    last_[count_++ % last_.size()] = {what, {a, b, c, d}};
    if (echo_) print(count_ - 1);
  }
  // Tallies, for a look at what the runs reach: by name, every event and what add() is told.
  void add(std::string_view what, uint64_t count) { tally_[what] += count; }
  const std::map<std::string_view, uint64_t>& tally() const { return tally_; }
  uint64_t hash() const { return hash_; }
  uint64_t count() const { return count_; }
  void set_echo(bool echo) { echo_ = echo; }
  void print_last(size_t most) const {
    if (echo_) return;  // it is all there already
    size_t shown = most < last_.size() ? most : last_.size();
    if (shown > count_) shown = count_;
    for (size_t i = count_ - shown; i < count_; ++i) print(i);
  }

 private:
  struct Event {
    std::string_view what;  // of static life
    uint64_t numbers[4];
  };
  void mix(uint64_t value) {
    hash_ = (hash_ ^ value) * 0x100000001b3u;
    hash_ ^= hash_ >> 29;
  }
  void print(size_t i) const {
    const Event& event = last_[i % last_.size()];
    std::printf("%8zu %.*s %llu %llu %llu %llu\n", i, static_cast<int>(event.what.size()),
                event.what.data(), static_cast<unsigned long long>(event.numbers[0]),
                static_cast<unsigned long long>(event.numbers[1]),
                static_cast<unsigned long long>(event.numbers[2]),
                static_cast<unsigned long long>(event.numbers[3]));
  }
  uint64_t hash_ = 0xcbf29ce484222325u;
  size_t count_ = 0;
  bool echo_ = false;
  std::map<std::string_view, uint64_t> tally_;
  std::array<Event, 512> last_;
};

}  // namespace basalt::sim
