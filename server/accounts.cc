#include "server/accounts.h"

#include <fmt/format.h>

#include <array>

#include "auth/digest.h"
#include "base/random.h"
#include "storage/mutation_builder.h"

namespace basalt::server {

namespace {

constexpr size_t kGeneratedAccessKeyChars = 20;
constexpr size_t kGeneratedSecretKeyChars = 40;

std::string generate_access_key() {
  std::string key = "BAK" + random_alphanumeric(kGeneratedAccessKeyChars - 3);
  for (char& c : key) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return key;
}

std::string generate_account_id() {
  std::array<uint8_t, 32> bytes{};
  fill_random(bytes);
  return auth::to_hex(bytes);
}

storage::KeyView identity_key(std::string_view name) {
  return {storage::Table::kIdentity, storage::kControlSpace, name};
}

}  // namespace

std::shared_ptr<const auth::Account> Accounts::find(std::string_view name_or_id) const {
  auto account = identities_.find_account_by_name(name_or_id);
  return account ? account : identities_.find_account(name_or_id);
}

Task<Status> Accounts::put(std::string name, std::string meta, bool must_be_new) {
  storage::MutationBuilder builder;
  builder.put(identity_key(name), {.meta = as_bytes(meta)});
  const storage::Precondition absent{storage::Precondition::Kind::kAbsent, identity_key(name)};
  std::span<const storage::Precondition> preconditions;
  if (must_be_new) preconditions = {&absent, 1};
  auto call = shards_.change(preconditions, builder.finish());
  CO_CHECK(call);
  co_return Status();
}

Task<Result<auth::Account>> Accounts::create_account(NewAccount wanted) {
  auth::Account account;
  account.name = wanted.name;
  account.id = wanted.id.empty() ? generate_account_id() : wanted.id;
  account.display_name = wanted.display_name.empty() ? wanted.name : wanted.display_name;
  account.email = wanted.email;
  account.created_ms = clock_.wall_ms();
  if (Status status = auth::check_account_name(account.name); !status)
    co_return std::unexpected(status.error());
  if (Status status = auth::check_account_id(account.id); !status)
    co_return std::unexpected(status.error());
  if (identities_.find_account_by_name(account.name)) {
    co_return fail(Code::kPreconditionFailed,
                   fmt::format("an account named '{}' exists already", account.name));
  }
  if (identities_.find_account(account.id)) {
    co_return fail(Code::kPreconditionFailed,
                   fmt::format("an account with id '{}' exists already", account.id));
  }
  // The second row keeps names unique between commands that run at the same time.
  const std::string row = auth::account_record_name(account.id);
  const std::string name_row = "name/" + account.name;
  const std::string meta = auth::encode_account(account);
  storage::MutationBuilder builder;
  builder.put(identity_key(row), {.meta = as_bytes(meta)});
  builder.put(identity_key(name_row), {.meta = as_bytes(account.id)});
  const storage::Precondition absent[] = {
      {storage::Precondition::Kind::kAbsent, identity_key(row)},
      {storage::Precondition::Kind::kAbsent, identity_key(name_row)}};
  auto call = shards_.change(absent, builder.finish());
  CO_CHECK(call);
  co_return account;
}

Task<Result<auth::AccessKey>> Accounts::create_key(NewKey wanted) {
  const auto account = find(wanted.account);
  if (!account) {
    co_return fail(Code::kNotFound,
                   fmt::format("no account '{}': 'basaltctl account list' shows those there are",
                               wanted.account));
  }
  auth::AccessKey key;
  key.account_id = account->id;
  key.access_key = wanted.access_key.empty() ? generate_access_key() : wanted.access_key;
  key.secret_key =
      wanted.secret_key.empty() ? random_alphanumeric(kGeneratedSecretKeyChars) : wanted.secret_key;
  key.created_ms = clock_.wall_ms();
  if (Status status = auth::check_access_key(key.access_key); !status)
    co_return std::unexpected(status.error());
  if (Status status = auth::check_secret_key(key.secret_key); !status)
    co_return std::unexpected(status.error());
  if (identities_.find_key(key.access_key)) {
    co_return fail(Code::kPreconditionFailed,
                   fmt::format("access key '{}' exists already", key.access_key));
  }
  CO_CHECK(put(auth::key_record_name(key.access_key), auth::encode_key(key, sealer_), true));
  co_return key;
}

Task<Status> Accounts::set_key_enabled(std::string access_key, bool enabled) {
  const auto found = identities_.find_key(access_key);
  if (!found) co_return fail(Code::kNotFound, fmt::format("no access key '{}'", access_key));
  auth::AccessKey key = *found;
  key.enabled = enabled;
  co_return co_await put(auth::key_record_name(key.access_key), auth::encode_key(key, sealer_),
                         false);
}

Task<Status> Accounts::remove_key(std::string access_key) {
  if (!identities_.find_key(access_key)) {
    co_return fail(Code::kNotFound, fmt::format("no access key '{}'", access_key));
  }
  const std::string row = auth::key_record_name(access_key);
  storage::MutationBuilder builder;
  builder.erase(identity_key(row));
  const storage::Precondition exists{storage::Precondition::Kind::kExists, identity_key(row)};
  auto call = shards_.change({&exists, 1}, builder.finish());
  auto done = co_await call;
  if (!done && done.error().code == Code::kNotFound) {
    co_return fail(
        Code::kNotFound,
        fmt::format("access key '{}' is not stored: it comes from BASALT_ROOT_ACCESS_KEY",
                    access_key));
  }
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return Status();
}

Task<Result<auth::Account>> Accounts::ensure_root_account() {
  for (const auto& account : identities_.accounts()) {
    if (account->root) co_return *account;
  }
  auth::Account root;
  root.id = generate_account_id();
  root.name = "root";
  root.display_name = "root";
  root.root = true;
  root.created_ms = clock_.wall_ms();
  CO_CHECK(put(auth::account_record_name(root.id), auth::encode_account(root), true));
  co_return root;
}

Task<Result<Accounts::RootKey>> Accounts::ensure_root_key(auth::Account root) {
  for (const auto& key : identities_.keys_of(root.id)) {
    if (key->enabled) co_return RootKey{*key, false};
  }
  CO_TRY(key, create_key({.account = root.id}));
  co_return RootKey{key, true};
}

}  // namespace basalt::server
