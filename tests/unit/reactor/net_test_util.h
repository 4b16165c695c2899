// What the reactor's and the sessions' tests share: a loop on a thread of its own, blocking
// clients, a certificate.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "reactor/loop.h"

namespace basalt::test {

// A running loop. Everything that lives on it is made and destroyed by run().
class LoopThread {
 public:
  LoopThread() : loop_(std::move(*reactor::Loop::create())), thread_([this] { loop_->run(); }) {}
  ~LoopThread() {
    loop_->stop();
    thread_.join();
  }
  reactor::Loop& loop() { return *loop_; }
  // Runs fn on the loop and waits for it.
  template <class Fn>
  auto run(Fn fn) {
    // Shared: the loop may still be inside the task when its result is here.
    auto task = std::make_shared<std::packaged_task<decltype(fn())()>>(std::move(fn));
    auto done = task->get_future();
    loop_->run_in_loop([task] { (*task)(); });
    return done.get();
  }

 private:
  std::unique_ptr<reactor::Loop> loop_;
  std::thread thread_;
};

// A blocking client; no call takes longer than 10 s.
class Client {
 public:
  explicit Client(int fd) : fd_(fd) {
    const timeval wait{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  }
  // "127.0.0.1:port" or "unix:path"
  static Client to(const std::string& address) {
    int fd = -1;
    int result = -1;
    if (address.starts_with("unix:")) {
      fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_un name{};
      name.sun_family = AF_UNIX;
      std::snprintf(name.sun_path, sizeof name.sun_path, "%s", address.c_str() + 5);
      result = ::connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name);
    } else {
      fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_port =
          htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
      name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      result = ::connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name);
    }
    EXPECT_EQ(result, 0) << address;
    return Client(fd);
  }
  Client(Client&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Client() { close(); }

  int fd() const { return fd_; }
  bool send(std::string_view data) {
    while (!data.empty()) {
      const ssize_t size = ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
      if (size <= 0) return false;
      data.remove_prefix(static_cast<size_t>(size));
    }
    return true;
  }
  // Up to `size` bytes; less at the end, at a reset or after 10 s.
  std::string read(size_t size) {
    std::string data(size, '\0');
    size_t have = 0;
    while (have < size) {
      const ssize_t got = recv(fd_, data.data() + have, size - have, 0);
      if (got <= 0) break;
      have += static_cast<size_t>(got);
    }
    data.resize(have);
    return data;
  }
  std::string read_all() {
    std::string data;
    char buffer[65536];
    ssize_t got;
    while ((got = recv(fd_, buffer, sizeof buffer, 0)) > 0)
      data.append(buffer, static_cast<size_t>(got));
    clean_end = got == 0;
    return data;
  }
  // Through the first occurrence of `end`.
  std::string read_until(std::string_view end) {
    std::string data;
    while (!data.ends_with(end)) {
      const std::string byte = read(1);
      if (byte.empty()) break;
      data += byte;
    }
    return data;
  }
  bool readable_within(int ms) {
    pollfd p{fd_, POLLIN, 0};
    return poll(&p, 1, ms) == 1;
  }
  void end_writing() { shutdown(fd_, SHUT_WR); }
  void reset() {
    const linger now{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool clean_end = false;  // read_all() met an orderly end

 private:
  int fd_;
};

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "basalt_net_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const {
    return (std::filesystem::path(path_) / name).string();
  }

 private:
  std::string path_;
};

// A self-signed certificate for `name` and its key, as PEM files.
inline void make_certificate(const std::string& name, const std::string& chain_file,
                             const std::string& key_file) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_sign(certificate, key, EVP_sha256());
  FILE* file = std::fopen(chain_file.c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(key_file.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

// A blocking TLS client over a connected Client.
class TlsClient {
 public:
  explicit TlsClient(Client client, int version_max = TLS1_3_VERSION,
                     std::string_view alpn = "\x08http/1.1")
      : client_(std::move(client)), context_(SSL_CTX_new(TLS_client_method())) {
    if (version_max < TLS1_2_VERSION) {
      SSL_CTX_set_security_level(context_, 0);
      SSL_CTX_set_min_proto_version(context_, version_max);
    }
    SSL_CTX_set_max_proto_version(context_, version_max);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, client_.fd());
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(alpn.data()),
                        static_cast<unsigned>(alpn.size()));
    connected = SSL_connect(ssl_) == 1;
    ERR_clear_error();
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  bool send(std::string_view data) {
    while (!data.empty()) {
      size_t size = 0;
      if (SSL_write_ex(ssl_, data.data(), data.size(), &size) != 1) {
        ERR_clear_error();
        return false;
      }
      data.remove_prefix(size);
    }
    return true;
  }
  std::string read(size_t size) {
    std::string data(size, '\0');
    size_t have = 0;
    while (have < size) {
      size_t got = 0;
      if (SSL_read_ex(ssl_, data.data() + have, size - have, &got) != 1) break;
      have += got;
    }
    ERR_clear_error();
    data.resize(have);
    return data;
  }
  // To the end; clean_end: with close_notify.
  std::string read_all() {
    std::string data;
    char buffer[16384];
    size_t got = 0;
    while (SSL_read_ex(ssl_, buffer, sizeof buffer, &got) == 1) data.append(buffer, got);
    clean_end = SSL_get_error(ssl_, 0) == SSL_ERROR_ZERO_RETURN;
    ERR_clear_error();
    return data;
  }
  std::string read_until(std::string_view end) {
    std::string data;
    while (!data.ends_with(end)) {
      const std::string byte = read(1);
      if (byte.empty()) break;
      data += byte;
    }
    return data;
  }
  std::string peer_name() {
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    char name[64] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                              sizeof name);
    X509_free(certificate);
    return name;
  }
  std::string alpn() {
    const unsigned char* name = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_, &name, &size);
    return {reinterpret_cast<const char*>(name), size};
  }
  SSL* ssl() { return ssl_; }
  Client& client() { return client_; }
  bool connected = false;
  bool clean_end = false;

 private:
  Client client_;
  SSL_CTX* context_;
  SSL* ssl_;
};

}  // namespace basalt::test
