#include "bench/workload.h"

#include <algorithm>
#include <cmath>

namespace basalt::bench {
namespace {

// (exp(x) - 1) / x and log(1 + x) / x, also near 0.
double exp_ratio(double x) { return std::abs(x) > 1e-8 ? std::expm1(x) / x : 1 + x / 2; }
double log_ratio(double x) { return std::abs(x) > 1e-8 ? std::log1p(x) / x : 1 - x / 2; }

}  // namespace

Zipf::Zipf(uint64_t count, double exponent)
    : exponent_(exponent), count_(static_cast<double>(count)) {
  integral_first_ = integral(1.5) - 1;
  integral_count_ = integral(count_ + 0.5);
  skip_ = 2 - inverse(integral(2.5) - std::pow(2.0, -exponent_));
}

double Zipf::integral(double x) const {
  const double log_x = std::log(x);
  return exp_ratio((1 - exponent_) * log_x) * log_x;
}

double Zipf::inverse(double x) const {
  const double t = std::max(-1.0, x * (1 - exponent_));
  return std::exp(log_ratio(t) * x);
}

uint64_t Zipf::next(Random& random) const {
  while (true) {
    const double u = integral_count_ + random.unit() * (integral_first_ - integral_count_);
    const double x = inverse(u);
    const double k = std::clamp(std::floor(x + 0.5), 1.0, count_);
    if (k - x <= skip_ || u >= integral(k + 0.5) - std::pow(k, -exponent_))
      return static_cast<uint64_t>(k) - 1;
  }
}

void Objects::append_key(uint64_t number, std::string& out) const {
  static constexpr char kHex[] = "0123456789abcdef";
  const auto append = [&out](uint64_t value, int digits) {
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
      out.push_back(kHex[(value >> shift) & 15]);
  };
  if (options_.folders != 0) {
    append(number % options_.folders, 8);
    out.push_back('/');
  }
  append(mix64(number), 16);
}

}  // namespace basalt::bench
