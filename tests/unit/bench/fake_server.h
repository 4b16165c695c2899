// A small S3-like server on loopback, a thread a connection, without authentication: what the load
// generator's tests run against. Its faults are settable while it runs.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace basalt::bench::testing {

class FakeServer {
 public:
  enum class Fault {
    kNone,
    kWrongByte,
    kShortBody,
    kChunked,
    kUntilClose,
    kSlowDown,
    kGarbage,
    kCloseInstead,
    kPauseOnce
  };
  std::atomic<Fault> fault{Fault::kNone};  // of GETs of objects
  std::atomic<int> pause_ms{300};          // of kPauseOnce, which holds all answers

  FakeServer() {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 64) != 0)
      std::abort();
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] {
      while (true) {
        const int fd = accept(listener_, nullptr, nullptr);
        if (fd < 0) return;
        std::lock_guard lock(mutex_);
        sockets_.push_back(fd);
        threads_.emplace_back([this, fd] { serve(fd); });
      }
    });
  }
  ~FakeServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    {
      std::lock_guard lock(mutex_);
      for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
    }
    for (auto& thread : threads_) thread.join();
    for (const int fd : sockets_) close(fd);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  size_t object_count() {
    std::lock_guard lock(mutex_);
    return objects_.size();
  }
  uint64_t requests() const { return requests_.load(); }
  std::atomic<uint64_t> sum_of_put_bytes{0};

 private:
  void serve(int fd) {
    std::string in;
    while (true) {
      size_t end;
      while ((end = in.find("\r\n\r\n")) == std::string::npos) {
        if (!fill(fd, in)) return;
      }
      const std::string head = in.substr(0, end + 2);
      in.erase(0, end + 4);
      uint64_t length = 0;
      if (const size_t at = head.find("Content-Length: "); at != std::string::npos) {
        std::from_chars(head.data() + at + 16, head.data() + head.size(), length);
      }
      while (in.size() < length) {
        if (!fill(fd, in)) return;
      }
      const std::string body = in.substr(0, length);
      in.erase(0, length);
      ++requests_;
      const std::string method = head.substr(0, head.find(' '));
      const std::string target =
          head.substr(method.size() + 1, head.find(' ', method.size() + 1) - method.size() - 1);
      if (!answer(fd, method, target, body)) {
        shutdown(fd, SHUT_RDWR);
        return;
      }
    }
  }
  static bool fill(int fd, std::string& in) {
    char buffer[65536];
    const ssize_t size = recv(fd, buffer, sizeof buffer, 0);
    if (size <= 0) return false;
    in.append(buffer, static_cast<size_t>(size));
    return true;
  }
  static void write(int fd, const std::string& text) {
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t size = send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (size <= 0) return;
      done += static_cast<size_t>(size);
    }
  }
  static std::string with_length(int status, const std::string& fields, const std::string& body) {
    return fmt::format("HTTP/1.1 {} X\r\n{}Content-Length: {}\r\n\r\n{}", status, fields,
                       body.size(), body);
  }
  // False: the connection is to be closed.
  bool answer(int fd, const std::string& method, const std::string& target,
              const std::string& body) {
    const size_t question = target.find('?');
    const std::string path = target.substr(0, question);
    const std::string query = question == std::string::npos ? "" : target.substr(question + 1);
    std::unique_lock lock(mutex_);
    if (query.starts_with("list-type")) {
      lock.unlock();
      write(fd, with_length(200, "", "<ListBucketResult></ListBucketResult>"));
      return true;
    }
    if (method == "POST" && query == "uploads=") {
      lock.unlock();
      write(fd, with_length(200, "",
                            "<InitiateMultipartUploadResult><UploadId>a+b/c</UploadId></"
                            "InitiateMultipartUploadResult>"));
      return true;
    }
    if (method == "POST") {
      lock.unlock();
      const bool good = query == "uploadId=a%2Bb%2Fc" &&
                        body.find("<PartNumber>2</PartNumber><ETag>&quot;e-2&quot;") != body.npos;
      write(fd, with_length(200, "",
                            good ? "<CompleteMultipartUploadResult/>"
                                 : "<Error><Code>InvalidPart</Code></Error>"));
      return true;
    }
    if (method == "PUT") {
      sum_of_put_bytes += body.size();
      const size_t part = query.find("partNumber=");
      if (part == std::string::npos) objects_[path] = body;
      lock.unlock();
      write(fd, with_length(200,
                            fmt::format("ETag: \"e-{}\"\r\n",
                                        part == std::string::npos ? '0' : query[part + 11]),
                            ""));
      return true;
    }
    const auto found = objects_.find(path);
    const bool is_there = found != objects_.end();
    if (method == "DELETE") {
      if (is_there) objects_.erase(found);
      lock.unlock();
      write(fd, "HTTP/1.1 204 No Content\r\n\r\n");
      return true;
    }
    std::string bytes = is_there ? found->second : "";
    lock.unlock();
    if (!is_there) {
      write(fd, method == "HEAD" ? "HTTP/1.1 404 Not Found\r\nContent-Length: 77\r\n\r\n"
                                 : with_length(404, "", "<Error><Code>NoSuchKey</Code></Error>"));
      return true;
    }
    if (method == "HEAD") {
      write(fd, fmt::format("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.size()));
      return true;
    }
    switch (fault.load()) {
      case Fault::kNone:
        break;
      case Fault::kPauseOnce: {
        std::lock_guard pause(mutex_);
        if (fault.exchange(Fault::kNone) == Fault::kPauseOnce) {
          std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms.load()));
        }
        break;
      }
      case Fault::kWrongByte:
        bytes[bytes.size() / 2] ^= 1;
        break;
      case Fault::kShortBody:
        bytes.pop_back();
        break;
      case Fault::kChunked: {
        const size_t half = bytes.size() / 2;
        // An interim answer first, and the head in two pieces.
        write(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-");
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        write(fd,
              fmt::format("Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n{:x};x=y\r\n{}\r\n0\r\n\r\n",
                          half, bytes.substr(0, half), bytes.size() - half, bytes.substr(half)));
        return true;
      }
      case Fault::kUntilClose:
        write(fd, "HTTP/1.1 200 OK\r\n\r\n" + bytes);
        return false;
      case Fault::kSlowDown:
        write(fd,
              with_length(503, "Connection: close\r\n", "<Error><Code>SlowDown</Code></Error>"));
        return false;
      case Fault::kGarbage:
        write(fd, "HTTP/2 200\r\n\r\n\r\n\r\n");
        return false;
      case Fault::kCloseInstead:
        return false;
    }
    write(fd, with_length(200, "", bytes));
    return true;
  }

  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread acceptor_;
  std::mutex mutex_;  // guards what follows
  std::map<std::string, std::string> objects_;
  std::list<int> sockets_;
  std::list<std::thread> threads_;
  std::atomic<uint64_t> requests_{0};
};

}  // namespace basalt::bench::testing
