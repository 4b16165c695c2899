#include "bench/bodies.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "auth/digest.h"
#include "auth/sha256.h"
#include "base/check.h"

namespace basalt::bench {
namespace {

uint64_t digest_key(uint64_t size, uint32_t variant) {
  return size * Bodies::kVariantsMax + variant;
}

}  // namespace

Result<std::unique_ptr<Bodies>> Bodies::create() {
  std::unique_ptr<Bodies> bodies(new Bodies());
  bodies->fd_ = memfd_create("basalt-bench", MFD_CLOEXEC);
  if (bodies->fd_ < 0 || ftruncate(bodies->fd_, kPatternBytes) != 0)
    return fail_errno(errno, "memfd_create");
  void* space = mmap(nullptr, 2 * kPatternBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (space == MAP_FAILED) return fail_errno(errno, "mmap");
  bodies->pattern_ = static_cast<uint8_t*>(space);
  for (int half = 0; half < 2; ++half) {
    if (mmap(bodies->pattern_ + static_cast<uint64_t>(half) * kPatternBytes, kPatternBytes,
             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, bodies->fd_, 0) == MAP_FAILED) {
      return fail_errno(errno, "mmap of the pattern");
    }
  }
  for (uint64_t i = 0; i < kPatternBytes; i += 8) {
    const uint64_t word = mix64(i);
    std::memcpy(bodies->pattern_ + i, &word, 8);
  }
  return bodies;
}

Bodies::~Bodies() {
  if (pattern_ != nullptr) munmap(pattern_, 2 * kPatternBytes);
  if (fd_ >= 0) close(fd_);
}

uint32_t Bodies::variants(uint64_t size) {
  constexpr uint64_t kHashedPerSize = uint64_t{256} << 20;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(kHashedPerSize / std::max<uint64_t>(size, 1), 2, kVariantsMax));
}

Body Bodies::body(uint64_t size, uint64_t random) {
  const auto variant = static_cast<uint32_t>(random % variants(size));
  return {.begin = mix64(variant) % kPatternBytes, .size = size, .variant = variant};
}

BodyDigest Bodies::compute(const Body& body, Signing signing) const {
  BodyDigest out;
  const bool chunks = signing == Signing::kChunked || signing == Signing::kSignedTrailer;
  const bool crc = signing == Signing::kTrailer || signing == Signing::kSignedTrailer;
  if (signing == Signing::kHeader) {
    auth::Sha256 hash;
    for (uint64_t done = 0; done < body.size;) {
      const uint64_t step = std::min(body.size - done, kPatternBytes);
      hash.update(Bytes(at(body.begin + done), step));
      done += step;
    }
    out.sha256_hex = auth::hex_digest(hash.finish()).view();
  }
  if (chunks) {
    for (uint64_t done = 0; done < body.size;) {
      const uint64_t step = std::min(body.size - done, kChunkBytes);
      out.chunk_sha256.push_back(
          auth::hex_digest(auth::sha256(as_text(Bytes(at(body.begin + done), step)))).digits);
      done += step;
    }
  }
  if (crc) {
    auth::Hasher hasher(auth::Algorithm::kCrc32);
    for (uint64_t done = 0; done < body.size;) {
      const uint64_t step = std::min(body.size - done, kPatternBytes);
      hasher.update(Bytes(at(body.begin + done), step));
      done += step;
    }
    out.crc32_base64 = auth::to_base64(hasher.finish().view());
  }
  return out;
}

void Bodies::prepare(const std::vector<uint64_t>& sizes, Signing signing) {
  if (signing != prepared_for_) digests_.clear();
  prepared_for_ = signing;
  for (const uint64_t size : sizes) {
    for (uint32_t variant = 0; variant < variants(size); ++variant) {
      const uint64_t key = digest_key(size, variant);
      if (!digests_.contains(key)) digests_.emplace(key, compute(body(size, variant), signing));
    }
  }
}

const BodyDigest& Bodies::digest(const Body& body) const {
  const auto found = digests_.find(digest_key(body.size, body.variant));
  BASALT_CHECK(found != digests_.end());
  return found->second;
}

}  // namespace basalt::bench
