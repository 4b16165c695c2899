#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "auth/identity.h"
#include "base/check.h"
#include "base/random.h"

namespace basalt::auth {
namespace {

constexpr uint8_t kSealVersion = 1;
constexpr size_t kNonceBytes = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr size_t kTagBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == 32);

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Status read_key(int fd, const std::string& key_file, std::array<uint8_t, 32>& key) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return fail_errno(errno, "fstat " + key_file);
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalid, key_file + " is not a regular file");
  if ((info.st_mode & 077) != 0) {
    return fail(Code::kInvalid,
                key_file + " can be read by others than its owner: run chmod 600 on it");
  }
  if (info.st_size != static_cast<off_t>(key.size())) {
    return fail(Code::kInvalid, key_file + " is not a key file: it must hold exactly 32 bytes");
  }
  size_t done = 0;
  while (done < key.size()) {
    const ssize_t count = ::read(fd, key.data() + done, key.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read " + key_file);
    if (count == 0) return fail(Code::kInvalid, key_file + " became shorter while it was read");
    done += static_cast<size_t>(count);
  }
  return {};
}

// Written under another name first: a crash leaves either no key file or a whole one.
Status write_key(const std::string& key_file, Bytes key) {
  const std::string draft = key_file + ".new";
  if (::unlink(draft.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "unlink " + draft);
  {
    File file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.fd() < 0) return fail_errno(errno, "create " + draft);
    size_t done = 0;
    while (done < key.size()) {
      const ssize_t count = ::write(file.fd(), key.data() + done, key.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail_errno(errno, "write " + draft);
      done += static_cast<size_t>(count);
    }
    if (::fsync(file.fd()) != 0) return fail_errno(errno, "fsync " + draft);
  }
  if (::rename(draft.c_str(), key_file.c_str()) != 0) return fail_errno(errno, "rename " + draft);
  const size_t slash = key_file.rfind('/');
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : key_file.substr(0, slash);
  File parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.fd() < 0) return fail_errno(errno, "open " + directory);
  if (::fsync(parent.fd()) != 0) return fail_errno(errno, "fsync " + directory);
  return {};
}

}  // namespace

Result<Sealer> Sealer::open(const std::string& key_file, bool create) {
  BASALT_CHECK(sodium_init() >= 0);
  Sealer sealer;
  File file(::open(key_file.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() >= 0) {
    BASALT_CHECK_OK(read_key(file.fd(), key_file, sealer.key_));
    return sealer;
  }
  if (errno != ENOENT) return fail_errno(errno, "open " + key_file);
  if (!create) {
    return fail(Code::kNotFound, "the key file " + key_file +
                                     " is missing; without it the stored secret keys cannot be "
                                     "read: restore it from a backup");
  }
  fill_random(sealer.key_);
  BASALT_CHECK_OK(write_key(key_file, sealer.key_));
  return sealer;
}

Sealer::~Sealer() { sodium_memzero(key_.data(), key_.size()); }

Sealer::Sealer(Sealer&& other) noexcept : key_(other.key_) {
  sodium_memzero(other.key_.data(), other.key_.size());
}

std::string Sealer::seal(std::string_view plain, std::string_view associated) const {
  std::string sealed(1 + kNonceBytes + plain.size() + kTagBytes, '\0');
  auto* out = reinterpret_cast<uint8_t*>(sealed.data());
  out[0] = kSealVersion;
  fill_random({out + 1, kNonceBytes});
  unsigned long long size = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(out + 1 + kNonceBytes, &size, as_bytes(plain).data(),
                                             plain.size(), as_bytes(associated).data(),
                                             associated.size(), nullptr, out + 1, key_.data());
  BASALT_CHECK(size == plain.size() + kTagBytes);
  return sealed;
}

Result<std::string> Sealer::unseal(std::string_view sealed, std::string_view associated) const {
  if (sealed.size() < 1 + kNonceBytes + kTagBytes ||
      static_cast<uint8_t>(sealed[0]) != kSealVersion) {
    return fail(Code::kCorrupt, "a sealed secret is too short or of an unknown version");
  }
  const uint8_t* in = as_bytes(sealed).data();
  const size_t cipher_bytes = sealed.size() - 1 - kNonceBytes;
  std::string plain(cipher_bytes - kTagBytes, '\0');
  unsigned long long size = 0;
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(
          reinterpret_cast<uint8_t*>(plain.data()), &size, nullptr, in + 1 + kNonceBytes,
          cipher_bytes, as_bytes(associated).data(), associated.size(), in + 1, key_.data()) != 0) {
    return fail(Code::kCorrupt,
                "a sealed secret does not open: wrong key file, or the record was changed");
  }
  return plain;
}

}  // namespace basalt::auth
