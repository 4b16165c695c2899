#include "bench/options.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

namespace basalt::bench {
namespace {

Result<double> parse_number(std::string_view& text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0)
    return fail(Code::kInvalid, fmt::format("'{}' is not a number", text));
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// "what:weight"; without a weight it is 1.
Result<std::pair<std::string_view, uint32_t>> parse_weighted(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::pair{text, uint32_t{1}};
  std::string_view number = text.substr(colon + 1);
  uint32_t weight = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), weight);
  if (error != std::errc() || end != number.data() + number.size() || weight > 1'000'000) {
    return fail(Code::kInvalid, fmt::format("'{}' is not a weight", number));
  }
  return std::pair{text.substr(0, colon), weight};
}

std::string percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr ==
            text.data() + i + 3) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool is_loopback(const reactor::SocketAddress& address) {
  if (address.family() == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&address.storage);
    return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
  }
  if (address.family() == AF_INET6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
  }
  return false;
}

}  // namespace

std::string_view op_name(Op op) {
  static constexpr std::array<std::string_view, kOpCount> kNames = {
      "get",           "put",          "delete",
      "head",          "list",         "multipart",
      "create_upload", "upload_part",  "complete_upload",
      "ensure_object", "ensure_bucket"};
  return kNames[static_cast<size_t>(op)];
}

static constexpr std::array<std::string_view, 7> kSigningNames = {
    "header", "unsigned-payload", "presigned", "chunked", "trailer", "signed-trailer", "none"};

std::string_view signing_name(Signing signing) {
  return kSigningNames[static_cast<size_t>(signing)];
}

Result<Signing> parse_signing(std::string_view text) {
  const auto* found = std::ranges::find(kSigningNames, text);
  if (found == kSigningNames.end())
    return fail(Code::kInvalid, fmt::format("'{}' is no way of signing", text));
  return static_cast<Signing>(found - kSigningNames.begin());
}

std::string_view key_order_name(KeyOrder order) {
  static constexpr std::array<std::string_view, 3> kNames = {"uniform", "zipf", "sequential"};
  return kNames[static_cast<size_t>(order)];
}

Result<uint64_t> parse_size(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 14> kUnits = {
      {{"", 1},
       {"B", 1},
       {"K", 1024},
       {"KiB", 1024},
       {"k", 1e3},
       {"kB", 1e3},
       {"KB", 1e3},
       {"M", 1048576},
       {"MiB", 1048576},
       {"MB", 1e6},
       {"G", 1073741824},
       {"GiB", 1073741824},
       {"GB", 1e9},
       {"TiB", 1099511627776}}};
  std::string_view rest = text;
  BASALT_TRY(value, parse_number(rest));
  for (const auto& [unit, factor] : kUnits) {
    if (rest != unit) continue;
    const double bytes = value * factor;
    if (bytes > 5497558138880.0)
      return fail(Code::kTooLarge, fmt::format("'{}' is over 5 TiB", text));
    return static_cast<uint64_t>(bytes);
  }
  return fail(Code::kInvalid, fmt::format("'{}' is not a size (4096, 4KiB, 1.5MiB, 10MB)", text));
}

Result<uint64_t> parse_duration_ms(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 5> kUnits = {
      {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  std::string_view rest = text;
  BASALT_TRY(value, parse_number(rest));
  for (const auto& [unit, factor] : kUnits) {
    if (rest == unit && value * factor <= 7.0 * 86'400'000)
      return static_cast<uint64_t>(value * factor);
  }
  return fail(Code::kInvalid,
              fmt::format("'{}' is not a duration (500ms, 10s, 2m; at most 7 days)", text));
}

std::string size_text(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.4g} {}", value, kUnits[unit]);
}

Result<Sizes> Sizes::parse(std::string_view text) {
  Sizes sizes;
  const auto add = [&](uint64_t size, uint64_t weight) {
    sizes.sizes_.push_back(size);
    sizes.up_to_.push_back((sizes.up_to_.empty() ? 0 : sizes.up_to_.back()) + weight);
  };
  if (const size_t dash = text.find('-'); dash != std::string_view::npos) {
    BASALT_TRY(low, parse_size(text.substr(0, dash)));
    BASALT_TRY(high, parse_size(text.substr(dash + 1)));
    if (low == 0 || high < low)
      return fail(Code::kInvalid, fmt::format("'{}' is not a range of sizes", text));
    const double step =
        std::log(static_cast<double>(high) / static_cast<double>(low)) / (kRangeSteps - 1);
    for (size_t i = 0; i < kRangeSteps; ++i) {
      add(static_cast<uint64_t>(
              std::round(static_cast<double>(low) * std::exp(step * static_cast<double>(i)))),
          1);
    }
    return sizes;
  }
  for (std::string_view part : split(text, ',')) {
    BASALT_TRY(weighted, parse_weighted(part));
    BASALT_TRY(size, parse_size(weighted.first));
    add(size, weighted.second);
  }
  if (sizes.up_to_.back() == 0) return fail(Code::kInvalid, "all sizes weigh nothing");
  return sizes;
}

uint64_t Sizes::of(uint64_t random) const {
  if (sizes_.size() == 1) return sizes_.front();
  const uint64_t at = random % up_to_.back();
  return sizes_[static_cast<size_t>(std::ranges::upper_bound(up_to_, at) - up_to_.begin())];
}

uint64_t Sizes::mean() const {
  double sum = 0;
  for (size_t i = 0; i < sizes_.size(); ++i) {
    sum += static_cast<double>(sizes_[i]) *
           static_cast<double>(up_to_[i] - (i == 0 ? 0 : up_to_[i - 1]));
  }
  return static_cast<uint64_t>(sum / static_cast<double>(up_to_.back()));
}

Result<std::vector<MixShare>> parse_mix(std::string_view text) {
  std::vector<MixShare> mix;
  uint32_t puts = 0, deletes = 0, all = 0;
  for (std::string_view part : split(text, ',')) {
    BASALT_TRY(weighted, parse_weighted(part));
    MixShare share{Op::kGet, weighted.second};
    bool known = false;
    for (const Op op : {Op::kGet, Op::kPut, Op::kDelete, Op::kHead, Op::kList}) {
      if (op_name(op) != weighted.first) continue;
      share.op = op;
      known = true;
    }
    if (!known)
      return fail(
          Code::kInvalid,
          fmt::format("'{}' cannot be in a mix (get, put, delete, head, list)", weighted.first));
    if (share.op == Op::kPut) puts += share.weight;
    if (share.op == Op::kDelete) deletes += share.weight;
    all += share.weight;
    mix.push_back(share);
  }
  if (all == 0) return fail(Code::kInvalid, "everything in the mix weighs nothing");
  if (deletes > puts) return fail(Code::kInvalid, "the mix deletes more than it puts");
  return mix;
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  Endpoint endpoint;
  std::string_view rest = text;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    endpoint.tls = true;
  } else {
    return fail(Code::kInvalid, fmt::format("'{}' does not begin with http:// or https://", text));
  }
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view user = rest.substr(0, at);
    const size_t colon = user.find(':');
    if (colon == std::string_view::npos)
      return fail(Code::kInvalid, "the URL has an access key without a secret key");
    endpoint.access_key = percent_decode(user.substr(0, colon));
    endpoint.secret_key = percent_decode(user.substr(colon + 1));
    rest.remove_prefix(at + 1);
  }
  while (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.empty() || rest.find_first_of("/?# \r\n") != std::string_view::npos) {
    return fail(Code::kInvalid,
                fmt::format("'{}' must be scheme://host:port and nothing else", text));
  }
  endpoint.url = fmt::format("{}://{}", endpoint.tls ? "https" : "http", rest);
  endpoint.name = endpoint.url;
  std::string_view host = rest, port;
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string_view::npos)
      return fail(Code::kInvalid, fmt::format("'{}': no ']'", text));
    host = rest.substr(1, end - 1);
    if (end + 1 < rest.size() && rest[end + 1] == ':') port = rest.substr(end + 2);
  } else if (const size_t colon = rest.rfind(':'); colon != std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
  }
  endpoint.host = host;
  endpoint.port = endpoint.tls ? 443 : 80;
  const uint16_t usual = endpoint.port;
  if (!port.empty()) {
    const auto [end, error] =
        std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (error != std::errc() || end != port.data() + port.size() || endpoint.port == 0) {
      return fail(Code::kInvalid, fmt::format("'{}' is not a port", port));
    }
  }
  const std::string shown = rest.starts_with('[') ? fmt::format("[{}]", host) : std::string(host);
  endpoint.host_header =
      endpoint.port == usual ? shown : fmt::format("{}:{}", shown, endpoint.port);

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0)
    return fail(Code::kNotFound, fmt::format("{}: {}", endpoint.host, gai_strerror(error)));
  std::memcpy(&endpoint.address.storage, found->ai_addr, found->ai_addrlen);
  endpoint.address.size = found->ai_addrlen;
  freeaddrinfo(found);
  endpoint.loopback = is_loopback(endpoint.address);
  return endpoint;
}

}  // namespace basalt::bench
