#include "bench/worker.h"

#include <event2/event.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>

#include "base/check.h"

namespace basalt::bench {
namespace {

void bump(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

// What stands in <tag>...</tag>, as it is; enough for ids and codes, which hold no markup.
std::string_view element(std::string_view xml, std::string_view tag) {
  const std::string open = fmt::format("<{}>", tag), close = fmt::format("</{}>", tag);
  const size_t begin = xml.find(open);
  if (begin == std::string_view::npos) return {};
  const size_t end = xml.find(close, begin);
  if (end == std::string_view::npos) return {};
  return xml.substr(begin + open.size(), end - begin - open.size());
}

uint32_t share(uint32_t all, uint32_t parts, uint32_t index) {
  return all / parts + (index < all % parts ? 1 : 0);
}

}  // namespace

uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Worker::Slot::Slot(Worker& owner, Client::Shared& shared)
    : worker(owner),
      client(shared, *this),
      pause(
          shared.loop,
          [](void* self) { static_cast<Slot*>(self)->worker.next(*static_cast<Slot*>(self)); },
          this) {}

Worker::Worker(uint32_t number, const RunOptions& options, const Bodies& bodies, const Plan& plan,
               SharedProgress& progress, SSL_CTX* tls)
    : number_(number),
      options_(options),
      bodies_(bodies),
      plan_(plan),
      progress_(progress),
      tls_(tls),
      connections_(share(options.connections, options.threads, number)),
      stats_(std::make_unique<WorkerStats>()),
      objects_(options),
      signer_(options, bodies),
      random_(mix64(options.seed * 1000 + number)),
      next_written_(first_written(number)) {
  if (options.key_order == KeyOrder::kZipf)
    zipf_ = std::make_unique<Zipf>(options.keys, options.zipf_exponent);
  for (const MixShare& part : options.mix) mix_weight_ += part.weight;
  path_prefix_ = "/";
  append_encoded(options.bucket, true, path_prefix_);
  path_prefix_.push_back('/');
  append_encoded(options.prefix, true, path_prefix_);
  interval_ns_ = options.rate > 0 ? 1e9 * options.threads / options.rate : 0;
}

Worker::~Worker() {
  if (loop_) loop_->stop();
  if (thread_.joinable()) thread_.join();
  if (timer_fd_ >= 0) {
    event_del(&due_event_);
    close(timer_fd_);
  }
  // Clients and timers go before the loop they live on.
  slots_.clear();
  end_timer_.reset();
  shared_.reset();
}

Status Worker::start() {
  auto loop = reactor::Loop::create();
  if (!loop) return std::unexpected(loop.error());
  loop_ = std::move(*loop);
  shared_.reset(new Client::Shared{*loop_, options_, bodies_, tls_});
  end_timer_ = std::make_unique<reactor::Timer>(
      *loop_, [](void* self) { static_cast<Worker*>(self)->end_of_window(); }, this);
  if (open_loop()) {
    timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer_fd_ < 0) return fail_errno(errno, "timerfd_create");
    event_assign(
        &due_event_, loop_->base(), timer_fd_, EV_READ | EV_PERSIST,
        [](evutil_socket_t fd, short, void* self) {
          uint64_t count;
          [[maybe_unused]] const ssize_t size = read(fd, &count, sizeof count);
          static_cast<Worker*>(self)->on_due();
        },
        this);
    event_add(&due_event_, nullptr);
  }
  for (uint32_t i = 0; i < connections_; ++i)
    slots_.push_back(std::make_unique<Slot>(*this, *shared_));
  outstanding_ = connections_;
  loop_->defer([this] {
    if (slots_.empty()) ready_.store(true, std::memory_order_release);
    for (auto& slot : slots_) slot->client.connect();
  });
  thread_ = std::thread([this] { run(); });
  return {};
}

void Worker::run() {
  pthread_setname_np(pthread_self(), fmt::format("bench-{}", number_).c_str());
  if (!options_.cpus.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(options_.cpus[number_ % options_.cpus.size()]), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  loop_->run();
}

uint64_t Worker::cpu_ns() {
  clockid_t clock;
  timespec used{};
  if (pthread_getcpuclockid(thread_.native_handle(), &clock) == 0) clock_gettime(clock, &used);
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

std::string Worker::first_failure() const {
  std::lock_guard lock(failure_mutex_);
  return first_failure_;
}

void Worker::connected() {
  if (--outstanding_ == 0) ready_.store(true, std::memory_order_release);
}

void Worker::begin(const Window& window) {
  loop_->run_in_loop([this, window] { begin_in_loop(window); });
}

void Worker::stop() {
  loop_->run_in_loop([this] {
    if (draining_) return;
    window_.measure_end_ns = std::min(window_.measure_end_ns, monotonic_ns());
    end_of_window();
  });
}

void Worker::begin_in_loop(const Window& window) {
  window_ = window;
  begun_ = true;
  // All workers start at the same moment; it is at most a few milliseconds away.
  const timespec begin{static_cast<time_t>(window.begin_ns / 1'000'000'000),
                       static_cast<long>(window.begin_ns % 1'000'000'000)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &begin, nullptr);
  if (window.measure_end_ns != UINT64_MAX) {
    end_timer_->arm(
        (window.measure_end_ns - std::min(window.measure_end_ns, monotonic_ns())) / 1'000'000 + 1);
  }
  if (open_loop()) {
    // Each worker's operations lie between the others'.
    due_exact_ns_ =
        static_cast<double>(window.begin_ns) + interval_ns_ * number_ / options_.threads;
    set_due();
  }
  busy_ = connections_;
  for (auto& slot : slots_) next(*slot);
  finish_if_idle();
}

void Worker::set_due() { due_ns_ = static_cast<uint64_t>(due_exact_ns_); }

// Gives the slot its next operation, or lets it rest.
void Worker::next(Slot& slot) {
  const uint64_t now = monotonic_ns();
  slot.idle = false;
  if (open_loop()) {
    if (due_ns_ >= window_.measure_end_ns) return become_idle(slot);
    if (due_ns_ > now) {
      become_idle(slot);
      return arm_due_timer();
    }
    slot.due_ns = due_ns_;
    due_exact_ns_ += options_.poisson ? -std::log1p(-random_.unit()) * interval_ns_ : interval_ns_;
    set_due();
  } else {
    if (draining_ || now >= window_.measure_end_ns) return become_idle(slot);
    slot.due_ns = now;
  }
  slot.counted = false;
  if (options_.count != 0 && plan_.kind == Plan::Kind::kMeasure &&
      slot.due_ns >= window_.measure_begin_ns) {
    if (progress_.tickets.fetch_add(1, std::memory_order_relaxed) >= options_.count)
      return become_idle(slot);
    slot.counted = true;
  }
  if (!draw(slot)) return become_idle(slot);
  send(slot);
}

void Worker::become_idle(Slot& slot) {
  if (slot.idle) return;
  slot.idle = true;
  --busy_;
  idle_.push_back(&slot);
  if (draining_ || !open_loop() || due_ns_ >= window_.measure_end_ns || options_.count != 0)
    finish_if_idle();
}

void Worker::finish_if_idle() {
  if (!begun_ || busy_ != 0 || finished_.load(std::memory_order_relaxed)) return;
  if (open_loop() && due_ns_ < window_.measure_end_ns && !draining_ &&
      (options_.count == 0 || progress_.tickets.load(std::memory_order_relaxed) < options_.count)) {
    return;
  }
  end_timer_->disarm();
  finished_.store(true, std::memory_order_release);
}

void Worker::arm_due_timer() {
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(due_ns_ / 1'000'000'000);
  when.it_value.tv_nsec = static_cast<long>(due_ns_ % 1'000'000'000);
  timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void Worker::on_due() {
  if (finished()) return;
  while (!idle_.empty() && due_ns_ <= monotonic_ns() && due_ns_ < window_.measure_end_ns) {
    Slot& slot = *idle_.back();
    idle_.pop_back();
    ++busy_;
    next(slot);
    if (slot.idle) return;  // nothing is left, or the timer is armed anew
  }
  if (!idle_.empty() && due_ns_ < window_.measure_end_ns) arm_due_timer();
}

void Worker::end_of_window() {
  if (draining_) return give_up();
  // In an open loop what is due stays due: become_idle() sees the end of it.
  draining_ = true;
  if (busy_ == 0) return finish_if_idle();
  end_timer_->arm(options_.drain_ms);
}

// The drain's time is up: what is not answered now will not be waited for.
void Worker::give_up() {
  const uint64_t now = monotonic_ns();
  for (auto& slot : slots_) {
    if (slot->idle) continue;
    if (open_loop() && in_window(slot->due_ns)) {
      OpStats& stats = stats_->ops[static_cast<size_t>(slot->op)];
      stats.latency.add(now - slot->due_ns);
      bump(stats.unfinished);
    }
    slot->pause.disarm();
    slot->client.close();
    slot->idle = true;
  }
  busy_ = 0;
  if (open_loop() && options_.count == 0) {
    // The queue that never got a connection. The mix is not drawn for these: they count under the
    // run's first operation.
    OpStats& stats =
        stats_->ops[static_cast<size_t>(options_.mixed ? options_.mix.front().op : options_.op)];
    while (due_ns_ < window_.measure_end_ns) {
      if (due_ns_ >= window_.measure_begin_ns) {
        stats.latency.add(now - due_ns_);
        bump(stats.unfinished);
      }
      due_exact_ns_ += interval_ns_;
      set_due();
    }
  }
  finish_if_idle();
}

// --- Drawing

uint64_t Worker::draw_key() {
  switch (options_.key_order) {
    case KeyOrder::kUniform:
      return random_.below(options_.keys);
    case KeyOrder::kZipf:
      return zipf_->next(random_);
    case KeyOrder::kSequential:
      return progress_.cursor.fetch_add(1, std::memory_order_relaxed) % options_.keys;
  }
  return 0;
}

bool Worker::draw(Slot& slot) {
  slot.step = Step::kOnly;
  if (plan_.kind != Plan::Kind::kMeasure) {
    uint64_t at = progress_.cursor.fetch_add(1, std::memory_order_relaxed);
    slot.op = plan_.kind == Plan::Kind::kEnsureBucket    ? Op::kEnsureBucket
              : plan_.kind == Plan::Kind::kEnsureObjects ? Op::kEnsureObject
                                                         : Op::kDelete;
    if (slot.op != Op::kDelete) slot.step = plan_.overwrite ? Step::kWrite : Step::kCheck;
    if (at < plan_.objects) {
      slot.object = objects_.object(at);
      return true;
    }
    at -= plan_.objects;
    for (const auto& [first, end] : plan_.also) {
      if (at < end - first) {
        slot.object = objects_.object(first + at);
        return true;
      }
      at -= end - first;
    }
    return false;
  }

  slot.op = options_.op;
  if (options_.mixed) {
    uint64_t at = random_.below(mix_weight_);
    for (const MixShare& part : options_.mix) {
      slot.op = part.op;
      if (at < part.weight) break;
      at -= part.weight;
    }
    if (slot.op == Op::kDelete && deletable_.empty()) slot.op = Op::kPut;
    if (slot.op == Op::kDelete) {
      slot.object = objects_.object(deletable_.front());
      deletable_.pop_front();
      return true;
    }
    if (slot.op == Op::kPut) {
      slot.object = objects_.object(next_written_++);
      stats_->written_end.store(next_written_, std::memory_order_relaxed);
      return true;
    }
  } else if (slot.op == Op::kDelete) {
    // Each object can be deleted once.
    const uint64_t at = progress_.cursor.fetch_add(1, std::memory_order_relaxed);
    if (at >= options_.keys) return false;
    slot.object = objects_.object(at);
    return true;
  } else if (slot.op == Op::kMultipart) {
    slot.step = Step::kCreate;
  }
  slot.object = objects_.object(draw_key());
  return true;
}

// --- Sending

uint32_t Worker::part_count(uint64_t size) const {
  return static_cast<uint32_t>(
      std::max<uint64_t>(1, (size + options_.part_bytes - 1) / options_.part_bytes));
}

Body Worker::part_body(const Slot& slot, uint32_t part) const {
  const uint64_t done = uint64_t{part} * options_.part_bytes;
  return Bodies::body(std::min(slot.object.body.size - done, options_.part_bytes),
                      slot.object.body.variant + part);
}

void Worker::send(Slot& slot) {
  Request& request = slot.client.request();
  signer_.set_time(time(nullptr));
  request.pieces.clear();
  request.is_head = false;
  request.sink = Request::Sink::kDrop;
  path_ = path_prefix_;
  objects_.append_key(slot.object.number, path_);
  query_.clear();
  switch (slot.op) {
    case Op::kGet:
      if (options_.verify) {
        request.sink = Request::Sink::kCompare;
        request.expected = slot.object.body;
      }
      signer_.write_plain({"GET", path_, {}}, {}, request.head);
      break;
    case Op::kPut:
      signer_.write_body({"PUT", path_, {}}, slot.object.body, request.head, request.frames,
                         request.pieces);
      break;
    case Op::kDelete:
      signer_.write_plain({"DELETE", path_, {}}, {}, request.head);
      break;
    case Op::kHead:
      request.is_head = true;
      signer_.write_plain({"HEAD", path_, {}}, {}, request.head);
      break;
    case Op::kList:
      request.sink = Request::Sink::kKeep;
      if (!options_.list_delimiter.empty()) {
        query_.append("delimiter=");
        append_encoded(options_.list_delimiter, false, query_);
        query_.push_back('&');
      }
      query_ += fmt::format("list-type=2&max-keys={}&prefix=", options_.list_keys);
      append_encoded(options_.prefix, false, query_);
      if (options_.list_delimiter.empty()) {
        query_.append("&start-after=");
        append_encoded(options_.prefix, false, query_);
        key_.clear();
        objects_.append_key(slot.object.number, key_);
        append_encoded(key_, false, query_);
      }
      path_.assign("/").append(options_.bucket);
      signer_.write_plain({"GET", path_, query_}, {}, request.head);
      break;
    case Op::kMultipart:
      slot.etags.clear();
      request.sink = Request::Sink::kKeep;
      signer_.write_plain({"POST", path_, "uploads="}, {}, request.head);
      break;
    case Op::kEnsureObject:
      if (slot.step == Step::kCheck) {
        request.is_head = true;
        signer_.write_plain({"HEAD", path_, {}}, {}, request.head);
      } else {
        signer_.write_body({"PUT", path_, {}}, slot.object.body, request.head, request.frames,
                           request.pieces);
      }
      break;
    case Op::kEnsureBucket:
      path_.assign("/").append(options_.bucket);
      slot.text.clear();
      if (slot.step == Step::kCheck) {
        request.is_head = true;
        signer_.write_plain({"HEAD", path_, {}}, {}, request.head);
        break;
      }
      if (options_.region != "us-east-1") {
        slot.text = fmt::format(
            "<CreateBucketConfiguration "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{}"
            "</LocationConstraint></CreateBucketConfiguration>",
            options_.region);
        request.pieces.push_back({.text = slot.text.data(), .size = slot.text.size()});
      }
      signer_.write_plain({"PUT", path_, {}}, slot.text, request.head);
      break;
    case Op::kCreateUpload:
    case Op::kUploadPart:
    case Op::kCompleteUpload:
      BASALT_CHECK(false);
  }
  slot.sent_ns = slot.step_sent_ns = monotonic_ns();
  slot.client.send();
}

void Worker::send_upload_part(Slot& slot) {
  Request& request = slot.client.request();
  signer_.set_time(time(nullptr));
  request.sink = Request::Sink::kDrop;
  path_ = path_prefix_;
  objects_.append_key(slot.object.number, path_);
  query_ = fmt::format("partNumber={}&uploadId={}", slot.etags.size() + 1, slot.upload_id);
  signer_.write_body({"PUT", path_, query_},
                     part_body(slot, static_cast<uint32_t>(slot.etags.size())), request.head,
                     request.frames, request.pieces);
  slot.step_sent_ns = monotonic_ns();
  slot.client.send();
}

void Worker::send_complete(Slot& slot) {
  Request& request = slot.client.request();
  signer_.set_time(time(nullptr));
  request.sink = Request::Sink::kKeep;
  slot.text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
  for (size_t i = 0; i < slot.etags.size(); ++i) {
    fmt::format_to(std::back_inserter(slot.text),
                   "<Part><PartNumber>{}</PartNumber><ETag>&quot;{}&quot;</ETag></Part>", i + 1,
                   slot.etags[i]);
  }
  slot.text.append("</CompleteMultipartUpload>");
  path_ = path_prefix_;
  objects_.append_key(slot.object.number, path_);
  query_ = fmt::format("uploadId={}", slot.upload_id);
  signer_.write_plain({"POST", path_, query_}, slot.text, request.head);
  request.pieces.clear();
  request.pieces.push_back({.text = slot.text.data(), .size = slot.text.size()});
  slot.step_sent_ns = monotonic_ns();
  slot.client.send();
}

// --- Answers

std::string Worker::check(const Slot& slot) const {
  const Response& response = slot.client.response();
  switch (slot.op) {
    case Op::kGet:
      if (response.body_bytes != slot.object.body.size) {
        return fmt::format("{} bytes came, {} were expected (another object? see --prepare always)",
                           response.body_bytes, slot.object.body.size);
      }
      if (response.body_differs) return "the bytes that came are not those that were put";
      break;
    case Op::kHead:
      if (response.content_length && *response.content_length != slot.object.body.size) {
        return fmt::format("Content-Length is {}, {} was expected", *response.content_length,
                           slot.object.body.size);
      }
      break;
    case Op::kList:
      if (!std::string_view(response.text).ends_with("</ListBucketResult>") &&
          response.text.find("</ListBucketResult>") == std::string::npos) {
        return "the answer is not a whole ListBucketResult";
      }
      break;
    default:
      break;
  }
  return {};
}

void Worker::record_step(Slot& slot, Op op, uint64_t now_ns, uint64_t bytes) {
  if (plan_.kind != Plan::Kind::kMeasure) return;
  OpStats& stats = stats_->ops[static_cast<size_t>(op)];
  if (counts(slot, now_ns)) {
    stats.latency.add(now_ns - slot.step_sent_ns);
    stats.service.add(now_ns - slot.step_sent_ns);
  }
  if (options_.count != 0 ? slot.counted : in_window(now_ns)) {
    bump(stats.in_window);
    bump(stats.bytes, bytes);
  }
}

// True when the operation is complete, and then it may have failed.
bool Worker::step_done(Slot& slot) {
  const Response& response = slot.client.response();
  const uint64_t now = monotonic_ns();
  switch (slot.step) {
    case Step::kOnly:
    case Step::kWrite:
      return true;
    case Step::kCheck:
      // An object of the wrong size was left by a run with other sizes; a bucket that is somebody
      // else's stays an error.
      if (response.status == 404 || (slot.op == Op::kEnsureObject && response.status == 200 &&
                                     response.content_length != slot.object.body.size)) {
        slot.step = Step::kWrite;
        send(slot);
        return false;
      }
      return true;
    case Step::kCreate: {
      if (response.status != 200) return true;
      const std::string_view id = element(response.text, "UploadId");
      if (id.empty()) return true;
      slot.upload_id.clear();
      append_encoded(id, false, slot.upload_id);
      record_step(slot, Op::kCreateUpload, now, 0);
      slot.step = Step::kPart;
      send_upload_part(slot);
      return false;
    }
    case Step::kPart:
      if (response.status != 200 || response.etag.empty()) return true;
      record_step(slot, Op::kUploadPart, now,
                  part_body(slot, static_cast<uint32_t>(slot.etags.size())).size);
      slot.etags.push_back(response.etag);
      if (slot.etags.size() < part_count(slot.object.body.size)) {
        send_upload_part(slot);
      } else {
        slot.step = Step::kComplete;
        send_complete(slot);
      }
      return false;
    case Step::kComplete:
      // CompleteMultipartUpload may answer 200 and then an <Error> (S3 API reference).
      if (response.status != 200 ||
          response.text.find("<CompleteMultipartUploadResult") == std::string::npos)
        return true;
      record_step(slot, Op::kCompleteUpload, now, 0);
      slot.step = Step::kOnly;
      return true;
  }
  return true;
}

void Worker::answered(Slot& slot) {
  if (!step_done(slot)) return;
  const uint64_t now = monotonic_ns();
  const Response& response = slot.client.response();
  if (response.status < 200 || response.status > 299) {
    const std::string_view code = element(response.text, "Code"),
                           message = element(response.text, "Message");
    record_failure(slot, stats_->by_status[static_cast<size_t>(response.status)],
                   fmt::format("status {} {} {}", response.status, code, message));
  } else if (slot.step != Step::kOnly && slot.op == Op::kMultipart) {
    record_failure(
        slot, stats_->by_failure[static_cast<size_t>(Failure::kProtocol)],
        fmt::format("the answer of a multipart step lacks its UploadId, ETag or result {}",
                    element(response.text, "Code")));
  } else if (const std::string wrong = check(slot); !wrong.empty()) {
    record_failure(slot, stats_->by_failure[static_cast<size_t>(Failure::kMismatch)], wrong);
  } else {
    record(slot, now);
  }
  next(slot);
}

void Worker::record(Slot& slot, uint64_t now_ns) {
  stats_->last_done_ns.store(now_ns, std::memory_order_relaxed);
  if (options_.mixed && slot.op == Op::kPut && deletable_.size() < kDeletableMax)
    deletable_.push_back(slot.object.number);
  OpStats& stats = stats_->ops[static_cast<size_t>(slot.op)];
  if (plan_.kind != Plan::Kind::kMeasure) return bump(stats.in_window);
  if (counts(slot, now_ns)) {
    stats.latency.add(now_ns - (open_loop() ? slot.due_ns : slot.sent_ns));
    stats.service.add(now_ns - slot.sent_ns);
  }
  if (options_.count != 0 ? slot.counted : in_window(now_ns)) {
    bump(stats.in_window);
    const bool moves = slot.op == Op::kGet || slot.op == Op::kPut || slot.op == Op::kMultipart;
    bump(stats.bytes, moves                  ? slot.object.body.size
                      : slot.op == Op::kList ? slot.client.response().body_bytes
                                             : 0);
  }
}

void Worker::record_failure(Slot& slot, std::atomic<uint64_t>& kind, const std::string& what) {
  const uint64_t now = monotonic_ns();
  stats_->last_done_ns.store(now, std::memory_order_relaxed);
  if (plan_.kind != Plan::Kind::kMeasure || counts(slot, now)) {
    bump(kind);
    bump(stats_->ops[static_cast<size_t>(slot.op)].failed);
  }
  std::lock_guard lock(failure_mutex_);
  if (first_failure_.empty()) first_failure_ = fmt::format("{}: {}", op_name(slot.op), what);
}

bool Worker::counts(const Slot& slot, uint64_t now_ns) const {
  if (options_.count != 0) return slot.counted;
  return in_window(open_loop() ? slot.due_ns : now_ns);
}

void Worker::failed(Slot& slot, Failure failure, const std::string& detail) {
  if (!begun_) {
    // While the connections are opened.
    bump(stats_->by_failure[static_cast<size_t>(failure)]);
    {
      std::lock_guard lock(failure_mutex_);
      if (first_failure_.empty())
        first_failure_ = fmt::format("{}: {}", failure_name(failure), detail);
    }
    if (--outstanding_ == 0) ready_.store(true, std::memory_order_release);
    return;
  }
  record_failure(slot, stats_->by_failure[static_cast<size_t>(failure)],
                 fmt::format("{}: {}", failure_name(failure), detail));
  if (failure == Failure::kConnect || failure == Failure::kTls) {
    slot.pause.arm(kPauseMs);
    return;
  }
  next(slot);
}

}  // namespace basalt::bench
