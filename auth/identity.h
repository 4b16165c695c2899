// Accounts and access keys, and Identity: who made a request.
//
// Only authenticate() (auth/sigv4.h) makes an Identity with an account; handlers cannot build one.
// IdentityTable is one core's copy of all accounts and keys, changed only by apply_change() when a
// committed change of the identity table reaches the core (read-your-writes). Lookups are hash
// look-ups; returned pointers are shared_ptr because a request keeps its account while the table
// changes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace basalt::auth {

constexpr size_t kAccountIdBytesMax = 64;
constexpr size_t kAccessKeyBytesMin = 3, kAccessKeyBytesMax = 128;
constexpr size_t kSecretKeyBytesMin = 8, kSecretKeyBytesMax = 128;

// An account owns buckets and objects. `id` is the canonical user id that S3 shows as owner.
struct Account {
  std::string id;            // default: 64 hex digits, random
  std::string name;          // unique, for the operator; [A-Za-z0-9_.-]{1,64}
  std::string display_name;  // default: name
  std::string email;         // may be empty
  bool root = false;         // may everything
  int64_t created_ms = 0;
};

struct AccessKey {
  std::string access_key;
  std::string secret_key;  // clear text in memory only; sealed at rest
  std::string account_id;
  bool enabled = true;
  int64_t created_ms = 0;
};

// Sealing of secrets at rest: XChaCha20-Poly1305 (libsodium), key of 32 bytes from a file of mode
// 0600, associated data = the record's name, so that a sealed secret does not open under another
// key's name.
class Sealer {
 public:
  // Reads the key file; creates it (fsynced, with its directory) if it does not exist and `create`
  // is set. The file is exactly 32 random bytes. kInvalid if it is not, or if group or others may
  // read it; kNotFound if it is missing.
  static Result<Sealer> open(const std::string& key_file, bool create);
  std::string seal(std::string_view plain, std::string_view associated) const;
  Result<std::string> unseal(std::string_view sealed, std::string_view associated) const;
  ~Sealer();
  Sealer(Sealer&&) noexcept;

 private:
  Sealer() = default;
  std::array<uint8_t, 32> key_{};
};

// Records of the identity table: name "account/<id>" or "key/<access key>", meta a flatbuffer
// (auth/identity.fbs).
std::string account_record_name(std::string_view id);
std::string key_record_name(std::string_view access_key);
std::string encode_account(const Account& account);
std::string encode_key(const AccessKey& key, const Sealer& sealer);
Result<Account> decode_account(Bytes meta);
Result<AccessKey> decode_key(Bytes meta, const Sealer& sealer);

// kInvalid with a sentence an operator understands.
Status check_account_name(std::string_view name);
Status check_account_id(std::string_view id);
Status check_access_key(std::string_view access_key);
Status check_secret_key(std::string_view secret_key);

class SigningKeyCache;

class IdentityTable {
 public:
  explicit IdentityTable(const Sealer& sealer);
  ~IdentityTable();

  // A committed change: `meta` nullopt = erased. kCorrupt if the record cannot be read (logged by
  // the caller, ignored).
  Status apply_change(std::string_view name, std::optional<Bytes> meta);
  // The root key of the environment or of the first start: root account and key that live in memory
  // only unless stored. This key wins over a stored one of the same name, so that the operator gets
  // in whatever is stored; a stored account of the same id wins over this one, but stays root.
  void set_root(const Account& account, const AccessKey& key);

  std::shared_ptr<const AccessKey> find_key(std::string_view access_key) const;
  std::shared_ptr<const Account> find_account(std::string_view id) const;
  std::shared_ptr<const Account> find_account_by_name(std::string_view name) const;
  std::shared_ptr<const Account> find_account_by_email(
      std::string_view email) const;                             // nullptr also if ambiguous
  std::vector<std::shared_ptr<const Account>> accounts() const;  // by name
  std::vector<std::shared_ptr<const AccessKey>> keys_of(
      std::string_view account_id) const;  // by access key
  std::shared_ptr<const Account> root() const;

  SigningKeyCache& signing_keys() const;  // of this core

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Who made the request. Anonymous: account is null.
class Identity {
 public:
  bool anonymous() const { return account_ == nullptr; }
  const Account& account() const { return *account_; }
  std::shared_ptr<const Account> account_ptr() const { return account_; }
  std::string_view access_key() const {
    return key_ ? std::string_view(key_->access_key) : std::string_view();
  }
  bool root() const { return account_ && account_->root; }

 private:
  friend class Gate;
  Identity() = default;
  std::shared_ptr<const Account> account_;
  std::shared_ptr<const AccessKey> key_;  // shared, not its name copied: no allocation a request
};

}  // namespace basalt::auth
