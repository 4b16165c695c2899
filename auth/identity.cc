#include "auth/identity.h"

#include <flatbuffers/flatbuffers.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "auth/generated/identity_generated.h"
#include "auth/sigv4.h"

namespace basalt::auth {
namespace {

constexpr char kAccountIdentifier[] = "BACC";
constexpr char kKeyIdentifier[] = "BKEY";
constexpr std::string_view kAccountPrefix = "account/";
constexpr std::string_view kKeyPrefix = "key/";
constexpr size_t kRecordBytesMax = 8192;
constexpr size_t kDisplayNameBytesMax = 256;
constexpr size_t kEmailBytesMax = 256;

void wipe(std::string& text) {
  sodium_memzero(text.data(), text.size());
  text.clear();
}

bool is_name_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
  });
}

std::string text_of(const flatbuffers::String* text) { return text ? text->str() : std::string(); }

std::string finished(flatbuffers::FlatBufferBuilder& builder) {
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

// Records come from LMDB pages at any address; FlatBuffers wants them aligned.
class AlignedCopy {
 public:
  explicit AlignedCopy(Bytes bytes) : size_(bytes.size()) {
    if (size_ <= memory_.size() && size_ > 0) std::memcpy(memory_.data(), bytes.data(), size_);
  }
  template <class Table>
  const Table* verified(const char* identifier) const {
    if (size_ > memory_.size() || size_ < 8) return nullptr;
    flatbuffers::Verifier verifier(memory_.data(), size_, 8, 100);
    if (!verifier.VerifyBuffer<Table>(identifier)) return nullptr;
    return flatbuffers::GetRoot<Table>(memory_.data());
  }

 private:
  size_t size_;
  alignas(16) std::array<uint8_t, kRecordBytesMax> memory_;
};

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

template <class Value>
using TextMap = std::unordered_map<std::string, Value, TextHash, std::equal_to<>>;

// The last owner wipes the secret.
std::shared_ptr<const AccessKey> share_key(AccessKey key) {
  return {new AccessKey(std::move(key)), [](AccessKey* owned) {
            wipe(owned->secret_key);
            delete owned;
          }};
}

}  // namespace

std::string account_record_name(std::string_view id) {
  return std::string(kAccountPrefix).append(id);
}
std::string key_record_name(std::string_view access_key) {
  return std::string(kKeyPrefix).append(access_key);
}

std::string encode_account(const Account& account) {
  flatbuffers::FlatBufferBuilder builder(512);
  const auto id = builder.CreateString(account.id);
  const auto name = builder.CreateString(account.name);
  const auto display_name = builder.CreateString(account.display_name);
  const auto email = builder.CreateString(account.email);
  builder.Finish(stored::CreateAccount(builder, id, name, display_name, email, account.root,
                                       account.created_ms),
                 kAccountIdentifier);
  return finished(builder);
}

std::string encode_key(const AccessKey& key, const Sealer& sealer) {
  const std::string sealed = sealer.seal(key.secret_key, key_record_name(key.access_key));
  flatbuffers::FlatBufferBuilder builder(512);
  const auto access_key = builder.CreateString(key.access_key);
  const auto secret = builder.CreateVector(as_bytes(sealed).data(), sealed.size());
  const auto account_id = builder.CreateString(key.account_id);
  builder.Finish(
      stored::CreateAccessKey(builder, access_key, secret, account_id, key.enabled, key.created_ms),
      kKeyIdentifier);
  return finished(builder);
}

Result<Account> decode_account(Bytes meta) {
  const AlignedCopy copy(meta);
  const auto* record = copy.verified<stored::Account>(kAccountIdentifier);
  if (!record) return fail(Code::kCorrupt, "an account record is not readable");
  Account account{.id = text_of(record->id()),
                  .name = text_of(record->name()),
                  .display_name = text_of(record->display_name()),
                  .email = text_of(record->email()),
                  .root = record->root(),
                  .created_ms = record->created_ms()};
  if (!check_account_id(account.id) || !check_account_name(account.name) ||
      account.display_name.size() > kDisplayNameBytesMax || account.email.size() > kEmailBytesMax) {
    return fail(Code::kCorrupt, "an account record holds a value out of range");
  }
  if (account.display_name.empty()) account.display_name = account.name;
  return account;
}

Result<AccessKey> decode_key(Bytes meta, const Sealer& sealer) {
  const AlignedCopy copy(meta);
  const auto* record = copy.verified<stored::AccessKey>(kKeyIdentifier);
  if (!record) return fail(Code::kCorrupt, "an access key record is not readable");
  AccessKey key{.access_key = text_of(record->access_key()),
                .secret_key = {},
                .account_id = text_of(record->account_id()),
                .enabled = record->enabled(),
                .created_ms = record->created_ms()};
  if (!check_access_key(key.access_key) || !check_account_id(key.account_id)) {
    return fail(Code::kCorrupt, "an access key record holds a value out of range");
  }
  const auto* sealed = record->sealed_secret();
  BASALT_TRY(secret, sealer.unseal(as_text({sealed->data(), sealed->size()}),
                                   key_record_name(key.access_key)));
  key.secret_key = secret;
  wipe(secret);
  if (!check_secret_key(key.secret_key)) {
    wipe(key.secret_key);
    return fail(Code::kCorrupt, "an access key record holds a secret key out of range");
  }
  return key;
}

Status check_account_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || !is_name_text(name)) {
    return fail(Code::kInvalid, "an account name has 1 to 64 characters of A-Z a-z 0-9 _ . -");
  }
  return {};
}

Status check_account_id(std::string_view id) {
  if (id.empty() || id.size() > kAccountIdBytesMax || !is_name_text(id)) {
    return fail(Code::kInvalid, "an account id has 1 to 64 characters of A-Z a-z 0-9 _ . -");
  }
  return {};
}

Status check_access_key(std::string_view access_key) {
  if (access_key.size() < kAccessKeyBytesMin || access_key.size() > kAccessKeyBytesMax ||
      !is_name_text(access_key)) {
    return fail(Code::kInvalid, "an access key has 3 to 128 characters of A-Z a-z 0-9 _ . -");
  }
  return {};
}

Status check_secret_key(std::string_view secret_key) {
  if (secret_key.size() < kSecretKeyBytesMin || secret_key.size() > kSecretKeyBytesMax ||
      !std::ranges::all_of(secret_key, [](char c) { return c > 0x20 && c < 0x7f; })) {
    return fail(Code::kInvalid,
                "a secret key has 8 to 128 printable ASCII characters without spaces");
  }
  return {};
}

struct IdentityTable::Impl {
  explicit Impl(const Sealer& the_sealer) : sealer(the_sealer) {}

  const Sealer& sealer;
  TextMap<std::shared_ptr<const Account>> accounts;  // stored, by id
  TextMap<std::shared_ptr<const AccessKey>> keys;    // stored, by access key
  TextMap<std::set<std::string, std::less<>>> keys_by_account;
  // Names are unique by the writer's check; should two records ever share one, every core picks the
  // smaller id.
  TextMap<std::set<std::string, std::less<>>> ids_by_name;
  TextMap<std::set<std::string, std::less<>>> ids_by_email;
  std::shared_ptr<const Account> root_account;  // from set_root
  std::shared_ptr<const AccessKey> root_key;
  mutable SigningKeyCache signing_keys;

  static void unlink(TextMap<std::set<std::string, std::less<>>>& index, const std::string& from,
                     const std::string& what) {
    const auto found = index.find(from);
    if (found == index.end()) return;
    found->second.erase(what);
    if (found->second.empty()) index.erase(found);
  }

  void erase_account(std::string_view id) {
    const auto found = accounts.find(id);
    if (found == accounts.end()) return;
    const Account& account = *found->second;
    unlink(ids_by_name, account.name, account.id);
    if (!account.email.empty()) unlink(ids_by_email, account.email, account.id);
    accounts.erase(found);
  }

  void erase_key(std::string_view access_key) {
    const auto found = keys.find(access_key);
    if (found == keys.end()) return;
    unlink(keys_by_account, found->second->account_id, found->second->access_key);
    keys.erase(found);
  }

  std::shared_ptr<const Account> account(std::string_view id) const {
    if (const auto found = accounts.find(id); found != accounts.end()) return found->second;
    if (root_account && root_account->id == id) return root_account;
    return nullptr;
  }
};

IdentityTable::IdentityTable(const Sealer& sealer) : impl_(std::make_unique<Impl>(sealer)) {}
IdentityTable::~IdentityTable() = default;

Status IdentityTable::apply_change(std::string_view name, std::optional<Bytes> meta) {
  if (name.starts_with(kAccountPrefix)) {
    const std::string_view id = name.substr(kAccountPrefix.size());
    if (!meta) {
      impl_->erase_account(id);
      return {};
    }
    BASALT_TRY(account, decode_account(*meta));
    if (account.id != id)
      return fail(Code::kCorrupt, "an account record stands under another account's name");
    // Whoever set_root named stays root, whatever the record says.
    if (impl_->root_account && impl_->root_account->id == id) account.root = true;
    impl_->erase_account(id);
    impl_->ids_by_name[account.name].insert(account.id);
    if (!account.email.empty()) impl_->ids_by_email[account.email].insert(account.id);
    std::string key = account.id;
    impl_->accounts.emplace(std::move(key), std::make_shared<const Account>(std::move(account)));
    return {};
  }
  if (name.starts_with(kKeyPrefix)) {
    const std::string_view access_key = name.substr(kKeyPrefix.size());
    if (!meta) {
      impl_->erase_key(access_key);
      return {};
    }
    BASALT_TRY(key, decode_key(*meta, impl_->sealer));
    if (key.access_key != access_key) {
      wipe(key.secret_key);
      return fail(Code::kCorrupt, "an access key record stands under another key's name");
    }
    impl_->erase_key(access_key);
    impl_->keys_by_account[key.account_id].insert(key.access_key);
    std::string copy = key.access_key;
    impl_->keys.emplace(std::move(copy), share_key(std::move(key)));
    return {};
  }
  return fail(Code::kCorrupt, "a record of the identity table has an unknown kind of name");
}

void IdentityTable::set_root(const Account& account, const AccessKey& key) {
  Account root = account;
  root.root = true;
  if (root.display_name.empty()) root.display_name = root.name;
  AccessKey root_key = key;
  root_key.account_id = root.id;
  if (const auto found = impl_->accounts.find(root.id);
      found != impl_->accounts.end() && !found->second->root) {
    Account stored = *found->second;
    stored.root = true;
    found->second = std::make_shared<const Account>(std::move(stored));
  }
  impl_->root_account = std::make_shared<const Account>(std::move(root));
  impl_->root_key = share_key(std::move(root_key));
}

std::shared_ptr<const AccessKey> IdentityTable::find_key(std::string_view access_key) const {
  if (impl_->root_key && impl_->root_key->access_key == access_key) return impl_->root_key;
  const auto found = impl_->keys.find(access_key);
  return found == impl_->keys.end() ? nullptr : found->second;
}

std::shared_ptr<const Account> IdentityTable::find_account(std::string_view id) const {
  return impl_->account(id);
}

std::shared_ptr<const Account> IdentityTable::find_account_by_name(std::string_view name) const {
  if (const auto found = impl_->ids_by_name.find(name); found != impl_->ids_by_name.end()) {
    return impl_->account(*found->second.begin());
  }
  if (impl_->root_account && impl_->root_account->name == name &&
      !impl_->accounts.contains(impl_->root_account->id)) {
    return impl_->root_account;
  }
  return nullptr;
}

std::shared_ptr<const Account> IdentityTable::find_account_by_email(std::string_view email) const {
  if (email.empty()) return nullptr;
  std::shared_ptr<const Account> found_account;
  if (const auto found = impl_->ids_by_email.find(email); found != impl_->ids_by_email.end()) {
    if (found->second.size() != 1) return nullptr;
    found_account = impl_->account(*found->second.begin());
  }
  const auto& root = impl_->root_account;
  if (root && root->email == email && !impl_->accounts.contains(root->id)) {
    if (found_account) return nullptr;
    found_account = root;
  }
  return found_account;
}

std::vector<std::shared_ptr<const Account>> IdentityTable::accounts() const {
  std::vector<std::shared_ptr<const Account>> all;
  all.reserve(impl_->accounts.size() + 1);
  for (const auto& [id, account] : impl_->accounts) all.push_back(account);
  if (impl_->root_account && !impl_->accounts.contains(impl_->root_account->id))
    all.push_back(impl_->root_account);
  std::ranges::sort(all, [](const auto& a, const auto& b) {
    return std::tie(a->name, a->id) < std::tie(b->name, b->id);
  });
  return all;
}

std::vector<std::shared_ptr<const AccessKey>> IdentityTable::keys_of(
    std::string_view account_id) const {
  std::vector<std::shared_ptr<const AccessKey>> all;
  const auto& root_key = impl_->root_key;
  if (const auto found = impl_->keys_by_account.find(account_id);
      found != impl_->keys_by_account.end()) {
    for (const std::string& access_key : found->second) {
      if (root_key && root_key->access_key == access_key) continue;  // hidden by set_root's
      all.push_back(impl_->keys.find(access_key)->second);
    }
  }
  if (root_key && root_key->account_id == account_id) {
    all.push_back(root_key);
    std::ranges::sort(all, {},
                      [](const auto& key) -> const std::string& { return key->access_key; });
  }
  return all;
}

std::shared_ptr<const Account> IdentityTable::root() const {
  if (impl_->root_account) return impl_->account(impl_->root_account->id);
  std::shared_ptr<const Account> root;
  for (const auto& [id, account] : impl_->accounts) {
    if (account->root && (!root || account->id < root->id)) root = account;
  }
  return root;
}

SigningKeyCache& IdentityTable::signing_keys() const { return impl_->signing_keys; }

}  // namespace basalt::auth
