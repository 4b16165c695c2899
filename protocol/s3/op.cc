#include "protocol/s3/op.h"

namespace basalt::s3 {

const std::string* S3Request::parameter(std::string_view name) const {
  for (const Parameter& parameter : query) {
    if (parameter.name == name) return &parameter.value;
  }
  return nullptr;
}

std::string Op::display_name(std::string_view account_id) const {
  const auto account = services.identities.find_account(account_id);
  return account == nullptr ? std::string() : account->display_name;
}

bool Op::may_access(const Bucket& other) const {
  if (auth.identity.anonymous()) return false;
  return auth.identity.root() || other.owner_id == auth.identity.account().id;
}

}  // namespace basalt::s3
