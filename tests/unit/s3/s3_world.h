// A whole S3 layer without sockets: dispatcher, gate, handlers and shards over the memory model of
// the engine. A request goes in as HTTP text, the answer comes out taken apart.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "auth/digest.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/clock.h"
#include "protocol/http/head.h"
#include "protocol/http/response.h"
#include "protocol/s3/dispatch.h"
#include "protocol/s3/op.h"
#include "shards/core.h"
#include "shards/fabric.h"
#include "storage/memory_engine.h"

namespace basalt::s3::testing {

inline constexpr int64_t kNowMs = 1'795'226'460'123;  // 2026-11-21T02:01:00.123Z
inline constexpr std::string_view kDateTime = "20261121T020100Z";
inline constexpr std::string_view kEmptySha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Answer {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;
  std::string body;
  bool complete = false;  // the handler ended its response
  bool closed = false;

  std::string header(std::string_view name) const {
    for (const auto& [field, value] : fields) {
      if (http::field_name_equals(field, name)) return value;
    }
    return "";
  }
  bool has(std::string_view name) const {
    return std::any_of(fields.begin(), fields.end(), [&](const auto& field) {
      return http::field_name_equals(field.first, name);
    });
  }
  // Text of the first <element>, still escaped; "" if there is none.
  std::string element(std::string_view name) const {
    const std::string open = fmt::format("<{}>", name);
    const size_t at = body.find(open);
    if (at == std::string::npos) return "";
    const size_t from = at + open.size();
    return body.substr(from, body.find(fmt::format("</{}>", name), from) - from);
  }
  std::vector<std::string> elements(std::string_view name) const {
    std::vector<std::string> all;
    const std::string open = fmt::format("<{}>", name), close = fmt::format("</{}>", name);
    for (size_t at = body.find(open); at != std::string::npos; at = body.find(open, at + 1)) {
      const size_t from = at + open.size();
      all.push_back(body.substr(from, body.find(close, from) - from));
    }
    return all;
  }
  std::string code() const { return element("Code"); }
};

// An exchange over strings. `piece` bytes arrive at a time.
class FakeExchange final : public session::Exchange {
 public:
  FakeExchange(const http::RequestHead& head, std::string body, size_t piece)
      : head_(head), body_(std::move(body)), piece_(piece) {}

  const http::RequestHead& head() const override { return head_; }
  std::string_view peer() const override { return "192.0.2.7:4711"; }
  bool tls() const override { return false; }

  Task<Result<size_t>> read(MutableBytes into) override {
    if (consumed_ == body_.size()) {
      if (cut_) co_return fail(Code::kCancelled, "closed early");
      co_return size_t{0};
    }
    const size_t count = std::min({into.size(), piece_, body_.size() - consumed_});
    std::copy_n(body_.data() + consumed_, count, into.data());
    consumed_ += count;
    shown_ = std::max(shown_, consumed_);
    co_return count;
  }
  Bytes buffered() const override {
    return as_bytes(std::string_view(body_).substr(consumed_, shown_ - consumed_));
  }
  void consume_buffered(size_t bytes) override { consumed_ += bytes; }
  Task<Result<bool>> fill() override {
    if (shown_ == body_.size()) {
      if (cut_) co_return fail(Code::kCancelled, "closed early");
      co_return false;
    }
    shown_ = std::min(body_.size(), shown_ + piece_);
    co_return true;
  }
  bool body_done() const override { return consumed_ == body_.size() && !cut_; }
  void cut() { cut_ = true; }  // the connection ends before the declared length

  http::ResponseHead& response() override { return response_; }
  Task<Status> send(std::string_view text) override {
    responded_ = true;
    answer.complete = true;
    if (head_.method != http::Method::kHead) answer.body.append(text);
    length_ = text.size();
    co_return Status();
  }
  Task<Status> send(Bytes body) override { return send(as_text(body)); }
  Task<Status> begin(std::optional<uint64_t> length) override {
    responded_ = true;
    length_ = length;
    co_return Status();
  }
  Task<Status> write(Bytes data) override {
    answer.body.append(as_text(data));
    co_return Status();
  }
  bool can_sendfile() const override { return false; }
  Task<Status> sendfile(int, uint64_t, uint64_t, reactor::FileCheck*) override {
    co_return fail(Code::kInvalid);
  }
  Task<Status> end() override {
    answer.complete = true;
    co_return Status();
  }
  bool responded() const override { return responded_; }
  uint64_t bytes_received() const override { return consumed_; }
  uint64_t bytes_sent() const override { return answer.body.size(); }
  void close_after() override { answer.closed = true; }

  Answer take() {
    std::string text;
    response_.write({.length = length_.value_or(0)}, kNowMs, text);
    answer.status = response_.status;
    size_t at = text.find("\r\n") + 2;
    while (at < text.size() && text.compare(at, 2, "\r\n") != 0) {
      const size_t end = text.find("\r\n", at);
      const size_t colon = text.find(':', at);
      answer.fields.emplace_back(text.substr(at, colon - at),
                                 text.substr(colon + 2, end - colon - 2));
      at = end + 2;
    }
    return std::move(answer);
  }

  Answer answer;

 private:
  const http::RequestHead& head_;
  const std::string body_;
  const size_t piece_;
  size_t consumed_ = 0;
  size_t shown_ = 0;
  bool cut_ = false;
  http::ResponseHead response_;
  std::optional<uint64_t> length_;
  bool responded_ = false;
};

struct Ask {
  std::string method = "GET";
  std::string target = "/";  // path and query as sent
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string access_key = "ALICEKEY";  // "": anonymous
  std::string secret_key = "alice-secret";
  std::string payload_hash;  // "": SHA-256 of the body
  std::string host = "s3.example.com:9000";
  std::string region = "us-east-1";
  bool content_length = true;  // send one (of the body, unless `headers` has it)
  size_t piece = 1000;         // bytes of the body that arrive at a time
  bool cut = false;            // the connection ends after `body`, whatever was declared
};

class ModelEngine final : public storage::Engine {
 public:
  explicit ModelEngine(unsigned shards) : shards_(shards) {}
  unsigned shard_count() const override { return shards_; }
  uint64_t hash_seed() const override { return 42; }
  std::unique_ptr<storage::CoreEngine> attach(unsigned, storage::Io&, RunQueue&,
                                              BufferPool&) override {
    return nullptr;
  }
  bool healthy() const override { return true; }
  std::string health_text() const override { return "ok"; }
  storage::SpaceUse space_use() const override { return {}; }
  uint64_t space_bytes(uint64_t) const override { return 0; }
  uint64_t space_objects(uint64_t) const override { return 0; }

 private:
  const unsigned shards_;
};

inline auth::Sealer make_sealer() {
  std::string folder = ::testing::TempDir() + "basalt-s3-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) abort();
  auto sealer = auth::Sealer::open(folder + "/key", true);
  if (!sealer) abort();
  ::unlink((folder + "/key").c_str());
  ::rmdir(folder.c_str());
  return std::move(*sealer);
}

class World : public shards::ControlListener, public RequestObserver {
 public:
  struct Record {
    std::string operation, error_code, bucket, key, request_id, access_key, account_id;
    int status = 0;
    uint64_t bytes_in = 0, bytes_out = 0;
  };

  explicit World(unsigned shard_count = 4, S3Options options_wanted = {}, bool any_region = false)
      : options(std::move(options_wanted)),
        model_(shard_count),
        fabric_(std::move(*shards::Fabric::create(1))),
        engine_(storage::make_memory_core(
            {0, 1, shard_count}, std::make_shared<storage::MemoryBlobs>(), run_queue_, buffers_)),
        shards_({*fabric_, 0, model_, *engine_, run_queue_, buffers_, *this}),
        gate_(identities, {.region = options.region, .any_region = any_region}),
        dispatcher_({shards_, buckets, identities, gate_, clock, buffers_, options, &hashes_},
                    this) {
    identities.set_root(
        {.id = "root-id", .name = "root", .display_name = "Root", .root = true},
        {.access_key = "ROOTKEY", .secret_key = "root-secret", .account_id = "root-id"});
    add_account("alice", "Alice", "ALICEKEY", "alice-secret");
    add_account("bob", "Bob", "BOBKEY", "bob-secret");
  }

  void on_change(storage::Table table, std::string_view name, std::optional<Bytes> meta,
                 uint64_t seq) override {
    if (table == storage::Table::kBucket) {
      EXPECT_TRUE(buckets.apply_change(name, meta, seq).has_value());
    }
  }
  void observed(const RequestRecord& r) override {
    records.push_back({std::string(r.operation), std::string(r.error_code), std::string(r.bucket),
                       std::string(r.key), std::string(r.request_id), std::string(r.access_key),
                       std::string(r.account_id), r.status, r.bytes_in, r.bytes_out});
  }

  BufferPool& buffers() { return buffers_; }

  // Runs everything on this thread until the task is done.
  template <class T>
  void drive(Task<T>& task) {
    task.start();
    for (int idle = 0; !task.done();) {
      bool any = shards_.poll();
      any |= engine_->poll();
      any |= run_queue_.run() > 0;
      if (!any) any = !hashes_.prepare_sleep();
      idle = any ? 0 : idle + 1;
      if (idle > 1000) abort();  // a handler waits for something that will never come
    }
  }

  Answer ask(Ask request) {
    const auto has = [&](std::string_view name) {
      return std::any_of(request.headers.begin(), request.headers.end(), [&](const auto& header) {
        return http::field_name_equals(header.first, name);
      });
    };
    if (!has("host")) request.headers.emplace_back("host", request.host);
    if (request.content_length && !has("content-length") && !has("transfer-encoding") &&
        (!request.body.empty() || request.method == "PUT" || request.method == "POST")) {
      request.headers.emplace_back("content-length", std::to_string(request.body.size()));
    }
    if (!request.access_key.empty()) sign(request);
    std::string text = fmt::format("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (const auto& [name, value] : request.headers)
      text += fmt::format("{}: {}\r\n", name, value);
    text += "\r\n";
    http::RequestHead head;
    const http::HeadResult parsed = http::parse_request_head(as_bytes(text), 0, head);
    EXPECT_EQ(parsed.status, http::HeadStatus::kComplete) << parsed.reason;
    FakeExchange exchange(head, request.body, request.piece);
    if (request.cut) exchange.cut();
    auto task = dispatcher_.handle(exchange);
    drive(task);
    return exchange.take();
  }
  Answer ask(std::string method, std::string target, std::string body = {}) {
    return ask({.method = std::move(method), .target = std::move(target), .body = std::move(body)});
  }
  Answer bad_head(int status, std::string_view reason) {
    http::RequestHead head;
    FakeExchange exchange(head, "", 1);
    auto task = dispatcher_.bad_head(exchange, status, reason);
    drive(task);
    return exchange.take();
  }

  void sign(Ask& request) const {
    const std::string hash =
        request.payload_hash.empty()
            ? auth::to_hex(auth::digest(auth::Algorithm::kSha256, as_bytes(request.body)).view())
            : request.payload_hash;
    request.headers.emplace_back("x-amz-content-sha256", hash);
    request.headers.emplace_back("x-amz-date", kDateTime);
    std::vector<auth::HeaderView> views;
    std::vector<std::string> names;
    for (const auto& [name, value] : request.headers) {
      views.push_back({name, value});
      names.push_back(name);
      for (char& c : names.back())
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    const std::vector<std::string_view> signed_headers(names.begin(), names.end());
    const size_t mark = request.target.find('?');
    const std::string path = request.target.substr(0, mark);
    const std::string query = mark == std::string::npos ? "" : request.target.substr(mark + 1);
    const std::string authorization =
        auth::sign_header({.request = {request.method, path, query, views},
                           .access_key = request.access_key,
                           .secret_key = request.secret_key,
                           .region = request.region,
                           .service = "s3",
                           .date_time = kDateTime,
                           .payload_hash = hash,
                           .signed_headers = signed_headers});
    request.headers.emplace_back("authorization", authorization);
  }

  S3Options options;
  ManualClock clock{kNowMs};
  BucketRegistry buckets;
  auth::Sealer sealer = make_sealer();
  auth::IdentityTable identities{sealer};
  std::vector<Record> records;

  shards::Client& client() { return shards_; }

 private:
  void add_account(const std::string& name, const std::string& display_name,
                   const std::string& access_key, const std::string& secret_key) {
    const std::string account =
        auth::encode_account({.id = name + "-id", .name = name, .display_name = display_name});
    EXPECT_TRUE(identities.apply_change(auth::account_record_name(name + "-id"), as_bytes(account))
                    .has_value());
    const std::string key = auth::encode_key(
        {.access_key = access_key, .secret_key = secret_key, .account_id = name + "-id"}, sealer);
    EXPECT_TRUE(
        identities.apply_change(auth::key_record_name(access_key), as_bytes(key)).has_value());
  }

  static const auth::HashPlan& hash_plan() {
    static const auth::HashPlan plan = auth::HashPlan::measure();
    return plan;
  }

  RunQueue run_queue_;
  auth::HashStation hashes_{run_queue_, hash_plan()};
  BufferPool buffers_;
  ModelEngine model_;
  std::unique_ptr<shards::Fabric> fabric_;
  std::unique_ptr<storage::CoreEngine> engine_;
  shards::CoreShards shards_;
  auth::Gate gate_;
  Dispatcher dispatcher_;
};

// The same request as another account.
inline Ask as_bob(Ask request) {
  request.access_key = "BOBKEY";
  request.secret_key = "bob-secret";
  return request;
}
inline Ask as_root(Ask request) {
  request.access_key = "ROOTKEY";
  request.secret_key = "root-secret";
  return request;
}
inline Ask anonymous(Ask request) {
  request.access_key.clear();
  return request;
}

inline std::string base64_digest(auth::Algorithm algorithm, std::string_view text) {
  return auth::to_base64(auth::digest(algorithm, as_bytes(text)).view());
}

}  // namespace basalt::s3::testing
