// What a run is asked to do, and the small languages of the command line (sizes, durations, mixes,
// endpoints).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "reactor/address.h"

namespace basalt::bench {

enum class Op : uint8_t {
  kGet,
  kPut,
  kDelete,
  kHead,
  kList,
  kMultipart,  // what can be measured
  kCreateUpload,
  kUploadPart,
  kCompleteUpload,  // the requests inside a multipart upload
  kEnsureObject,
  kEnsureBucket,  // preparation
};
constexpr size_t kOpCount = 11;
constexpr size_t kMeasuredOpCount = 6;
std::string_view op_name(Op op);

// kChunked: STREAMING-AWS4-HMAC-SHA256-PAYLOAD. kTrailer: STREAMING-UNSIGNED-PAYLOAD-TRAILER with a
// CRC-32. kSignedTrailer: STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER. These three apply to object
// and part bodies; their other requests are signed as kHeader. kNone sends no credentials (a public
// bucket, a plain web server).
enum class Signing : uint8_t {
  kHeader,
  kUnsignedPayload,
  kPresigned,
  kChunked,
  kTrailer,
  kSignedTrailer,
  kNone
};
std::string_view signing_name(Signing signing);
Result<Signing> parse_signing(std::string_view text);

enum class KeyOrder : uint8_t { kUniform, kZipf, kSequential };
std::string_view key_order_name(KeyOrder order);

Result<uint64_t> parse_size(std::string_view text);  // "4096", "4KiB", "1.5MiB", "10MB"
Result<uint64_t> parse_duration_ms(
    std::string_view text);             // "500ms", "10s", "2m", "1h"; a bare number is seconds
std::string size_text(uint64_t bytes);  // "4 KiB", "1.5 MiB"

// Which size an object has: fixed by its key, so that a reader knows what to expect.
class Sizes {
 public:
  static constexpr size_t kRangeSteps = 32;
  // "4KiB"; "4KiB-1MiB": 32 sizes between the two, evenly spaced in the logarithm;
  // "4KiB:80,1MiB:20": by weight.
  static Result<Sizes> parse(std::string_view text);
  uint64_t of(uint64_t random) const;
  const std::vector<uint64_t>& all() const { return sizes_; }
  uint64_t mean() const;

 private:
  std::vector<uint64_t> sizes_;
  std::vector<uint64_t> up_to_;  // cumulative weights
};

struct MixShare {
  Op op;
  uint32_t weight;
};
// "get:70,put:20,delete:5,head:5"; of get, put, delete, head, list. Deletes remove what puts of the
// same run wrote, so put must weigh at least as much as delete.
Result<std::vector<MixShare>> parse_mix(std::string_view text);

struct Endpoint {
  std::string name;  // in compare; else the URL
  std::string url;   // without credentials
  bool tls = false;
  std::string host;         // for TLS
  std::string host_header;  // with the port unless it is the scheme's own
  uint16_t port = 0;
  std::string access_key, secret_key;  // from the URL's user part, or ""
  reactor::SocketAddress address;
  bool loopback = false;
};
// "http://[ACCESS:SECRET@]host[:port]"; the name is resolved here, once, and may block.
Result<Endpoint> parse_endpoint(std::string_view text);

constexpr uint64_t kKeysMax = 1'000'000'000;
constexpr uint32_t kConnectionsMax = 65'536;
constexpr uint32_t kThreadsMax = 256;

struct RunOptions {
  Endpoint endpoint;
  std::string access_key, secret_key;
  std::string region = "us-east-1";
  std::string bucket = "basalt-bench";
  std::string prefix = "bench/";

  bool mixed = false;
  Op op = Op::kGet;
  std::vector<MixShare> mix;  // with mixed
  Sizes sizes;
  std::string sizes_text = "4KiB";
  uint64_t part_bytes = 8u << 20;
  uint32_t list_keys = 1000;
  std::string list_delimiter;  // not empty: each listing is the first page of what it rolls up
  uint64_t folders = 0;  // not 0: object i is in folder i % folders, "0000002a/", below the prefix
  uint64_t keys = 10'000;
  KeyOrder key_order = KeyOrder::kUniform;
  double zipf_exponent = 0.99;
  uint64_t seed = 1;

  uint32_t connections = 32;
  uint32_t threads = 1;
  std::vector<int> cpus;  // thread i runs on cpus[i % size]; empty: wherever
  uint64_t duration_ms = 10'000;
  uint64_t count = 0;  // not 0: so many operations instead of a duration
  uint64_t warmup_ms = 2'000;
  double rate = 0;  // operations a second in all; 0: closed loop
  bool poisson = false;
  uint64_t timeout_ms = 30'000;
  uint64_t drain_ms = 10'000;

  Signing signing = Signing::kHeader;
  bool verify = false;
  enum class Prepare : uint8_t { kAuto, kAlways, kNever } prepare = Prepare::kAuto;
  bool cleanup = false;
  std::vector<int> pids;  // the server's; empty: unknown
  std::string ca_file;
  bool insecure = false;
  bool quiet = false;
};

}  // namespace basalt::bench
