// Accounts: the operator's commands on accounts and access keys, and the root account's first
// start. Runs on core 0.
//
// Every change is a control change: durable, and seen by every core, before the command answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "auth/identity.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/task.h"
#include "shards/client.h"

namespace basalt::server {

struct NewAccount {
  std::string name, id, display_name, email;  // id, display_name: empty = default
};

struct NewKey {
  std::string account;                 // name or id
  std::string access_key, secret_key;  // empty: generated
};

class Accounts {
 public:
  Accounts(shards::Client& shards, auth::IdentityTable& identities, const auth::Sealer& sealer,
           const Clock& clock)
      : shards_(shards), identities_(identities), sealer_(sealer), clock_(clock) {}

  // Errors: kInvalid with a sentence for the operator; kPreconditionFailed if the name, id or key
  // exists; kNotFound if the account or key does not.
  Task<Result<auth::Account>> create_account(NewAccount wanted);
  Task<Result<auth::AccessKey>> create_key(NewKey wanted);
  Task<Status> set_key_enabled(std::string access_key, bool enabled);
  Task<Status> remove_key(std::string access_key);

  // The root account's record, made at the first start; it keeps its id for ever, since buckets
  // name it as owner.
  Task<Result<auth::Account>> ensure_root_account();
  // A stored key of the root account, made at the first start without BASALT_ROOT_*; `created`
  // tells.
  struct RootKey {
    auth::AccessKey key;
    bool created = false;
  };
  Task<Result<RootKey>> ensure_root_key(auth::Account root);

 private:
  std::shared_ptr<const auth::Account> find(std::string_view name_or_id) const;
  Task<Status> put(std::string name, std::string meta, bool must_be_new);

  shards::Client& shards_;
  auth::IdentityTable& identities_;
  const auth::Sealer& sealer_;
  const Clock& clock_;
};

}  // namespace basalt::server
