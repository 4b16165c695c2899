#include <openssl/crypto.h>

#include <list>
#include <unordered_map>

#include "auth/digest.h"
#include "auth/sha256.h"
#include "auth/sigv4.h"

namespace basalt::auth {
namespace {

struct Entry {
  std::string name;
  std::string secret_key;
  Sha256Digest key;
  HmacSha256 hmac;

  Entry() = default;
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
  ~Entry() { wipe(); }
  void wipe() {
    OPENSSL_cleanse(secret_key.data(), secret_key.size());
    OPENSSL_cleanse(key.data(), key.size());
  }
  bool is(std::string_view access_key, std::string_view date, std::string_view region,
          std::string_view service) const {
    if (name.size() != access_key.size() + date.size() + region.size() + service.size() + 3) {
      return false;
    }
    std::string_view rest = name;
    for (const std::string_view part : {access_key, date, region, service}) {
      if (!rest.starts_with(part)) return false;
      rest.remove_prefix(part.size());
      if (rest.empty()) return true;  // the last one: the sizes are equal
      if (rest.front() != '\0') return false;
      rest.remove_prefix(1);
    }
    return true;
  }
  void use(std::string_view secret, std::string_view date, std::string_view region,
           std::string_view service) {
    if (!equal_constant_time(as_bytes(secret_key), as_bytes(secret))) {
      derive(secret, date, region, service);
    }
  }
  void derive(std::string_view secret, std::string_view date, std::string_view region,
              std::string_view service) {
    wipe();
    secret_key = secret;
    std::string first;
    first.reserve(4 + secret.size());
    first.append("AWS4").append(secret);
    key = HmacSha256(as_bytes(first)).sign(date);
    OPENSSL_cleanse(first.data(), first.size());
    key = HmacSha256(key).sign(region);
    key = HmacSha256(key).sign(service);
    key = HmacSha256(key).sign("aws4_request");
    hmac.set_key(key);
  }
};

}  // namespace

struct SigningKeyCache::Impl {
  std::list<Entry> entries;  // most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator>
      by_name;       // views into the entries
  std::string name;  // of the look-up; kept for its memory

  const Entry& get(std::string_view access_key, std::string_view secret_key, std::string_view date,
                   std::string_view region, std::string_view service) {
    // Mostly the same key as the last request's.
    if (!entries.empty() && entries.front().is(access_key, date, region, service)) {
      Entry& entry = entries.front();
      entry.use(secret_key, date, region, service);
      return entry;
    }
    name.clear();
    name.append(access_key).push_back('\0');
    name.append(date).push_back('\0');
    name.append(region).push_back('\0');
    name.append(service);
    if (const auto found = by_name.find(name); found != by_name.end()) {
      entries.splice(entries.begin(), entries, found->second);
      Entry& entry = entries.front();
      entry.use(secret_key, date, region, service);
      return entry;
    }
    if (entries.size() < kEntriesMax) {
      entries.emplace_front();
    } else {
      by_name.erase(entries.back().name);
      entries.splice(entries.begin(), entries, std::prev(entries.end()));
    }
    Entry& entry = entries.front();
    entry.name = name;
    entry.derive(secret_key, date, region, service);
    by_name.emplace(entry.name, entries.begin());
    return entry;
  }
};

SigningKeyCache::SigningKeyCache() : impl_(std::make_unique<Impl>()) {}
SigningKeyCache::~SigningKeyCache() = default;

const std::array<uint8_t, 32>& SigningKeyCache::get(std::string_view access_key,
                                                    std::string_view secret_key,
                                                    std::string_view date, std::string_view region,
                                                    std::string_view service) {
  return impl_->get(access_key, secret_key, date, region, service).key;
}

const HmacSha256& SigningKeyCache::hmac(std::string_view access_key, std::string_view secret_key,
                                        std::string_view date, std::string_view region,
                                        std::string_view service) {
  return impl_->get(access_key, secret_key, date, region, service).hmac;
}

void SigningKeyCache::clear() {
  impl_->by_name.clear();
  impl_->entries.clear();
}

size_t SigningKeyCache::size() const { return impl_->entries.size(); }

}  // namespace basalt::auth
