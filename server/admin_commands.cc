#include "server/admin_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "server/admin_maintenance.h"
#include "server/version.h"

namespace basalt::server {

namespace {

using nlohmann::json;
using Parts = AdminCommands::Parts;

// What a command gives back, or a sentence that says what was wrong and how to mend it.
using Answer = Result<json>;

Result<std::string> text(const json& request, const char* name, bool required) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) {
    if (required) return fail(Code::kInvalid, fmt::format("the command needs '{}'", name));
    return std::string();
  }
  if (!found->is_string()) return fail(Code::kInvalid, fmt::format("'{}' is not a text", name));
  return found->get<std::string>();
}

json account_json(const auth::Account& account) {
  return {{"id", account.id},       {"name", account.name}, {"display_name", account.display_name},
          {"email", account.email}, {"root", account.root}, {"created_ms", account.created_ms}};
}

Task<Answer> status(Parts& parts, json) {
  const storage::SpaceUse use = parts.engine.space_use();
  co_return json{{"version", kVersion},
                 {"pid", getpid()},
                 {"uptime_seconds", (parts.clock.wall_ms() - parts.started_ms) / 1000},
                 {"cores", parts.cores},
                 {"shards", parts.engine.shard_count()},
                 {"io", parts.io_name},
                 {"s3_address", parts.s3_address},
                 {"healthy", parts.engine.healthy()},
                 {"health", parts.engine.health_text()},
                 {"buckets", parts.buckets.all().size()},
                 {"accounts", parts.identities.accounts().size()},
                 {"disk_bytes", use.disk_bytes},
                 {"disk_free_bytes", use.disk_free_bytes},
                 {"log_segments", use.log_segments},
                 {"bulk_segments", use.bulk_segments},
                 {"own_files", use.own_files},
                 {"segment_live_bytes", use.segment_live_bytes},
                 {"below_low_water", use.below_low_water}};
}

Task<Answer> account_create(Parts& parts, json request) {
  CO_TRY_NOW(name, text(request, "name", true));
  CO_TRY_NOW(id, text(request, "id", false));
  CO_TRY_NOW(display_name, text(request, "display_name", false));
  CO_TRY_NOW(email, text(request, "email", false));
  CO_TRY(account, parts.accounts.create_account({name, id, display_name, email}));
  co_return json{{"account", account_json(account)}};
}

Task<Answer> account_list(Parts& parts, json) {
  json list = json::array();
  for (const auto& account : parts.identities.accounts()) list.push_back(account_json(*account));
  co_return json{{"accounts", std::move(list)}};
}

Task<Answer> key_create(Parts& parts, json request) {
  CO_TRY_NOW(account, text(request, "account", true));
  CO_TRY_NOW(access_key, text(request, "access_key", false));
  CO_TRY_NOW(secret_key, text(request, "secret_key", false));
  if (access_key.empty() != secret_key.empty()) {
    co_return fail(Code::kInvalid, "give both --access-key and --secret-key-file, or neither");
  }
  const bool generated = secret_key.empty();
  CO_TRY(key, parts.accounts.create_key({account, access_key, secret_key}));
  json answer{{"access_key", key.access_key}, {"account_id", key.account_id}};
  // A generated secret is shown once, here; one that the operator brought is known to them.
  if (generated) answer["secret_key"] = key.secret_key;
  co_return answer;
}

Task<Answer> key_list(Parts& parts, json request) {
  CO_TRY_NOW(wanted, text(request, "account", false));
  json list = json::array();
  bool found = wanted.empty();
  for (const auto& account : parts.identities.accounts()) {
    if (!wanted.empty() && account->name != wanted && account->id != wanted) continue;
    found = true;
    for (const auto& key : parts.identities.keys_of(account->id)) {
      list.push_back(
          {{"access_key", key->access_key},
           {"account", account->name},
           {"account_id", account->id},
           {"enabled", key->enabled},
           {"created_ms", key->created_ms},
           {"source", key->access_key == parts.root_access_key ? "environment" : "stored"}});
    }
  }
  if (!found) {
    co_return fail(
        Code::kNotFound,
        fmt::format("no account '{}': 'basaltctl account list' shows those there are", wanted));
  }
  co_return json{{"keys", std::move(list)}};
}

Task<Answer> set_enabled(Parts& parts, json request, bool enabled) {
  CO_TRY_NOW(access_key, text(request, "access_key", true));
  if (access_key == parts.root_access_key) {
    co_return fail(
        Code::kInvalid,
        "this key comes from BASALT_ROOT_ACCESS_KEY: change the environment and restart");
  }
  CO_CHECK(parts.accounts.set_key_enabled(access_key, enabled));
  co_return json{{"access_key", access_key}, {"enabled", enabled}};
}

Task<Answer> key_disable(Parts& parts, json request) {
  return set_enabled(parts, std::move(request), false);
}
Task<Answer> key_enable(Parts& parts, json request) {
  return set_enabled(parts, std::move(request), true);
}

Task<Answer> key_remove(Parts& parts, json request) {
  CO_TRY_NOW(access_key, text(request, "access_key", true));
  if (access_key == parts.root_access_key) {
    co_return fail(
        Code::kInvalid,
        "this key comes from BASALT_ROOT_ACCESS_KEY: change the environment and restart");
  }
  CO_CHECK(parts.accounts.remove_key(access_key));
  co_return json{{"access_key", access_key}, {"removed", true}};
}

Task<Answer> bucket_list(Parts& parts, json) {
  json list = json::array();
  for (const auto& [name, bucket] : parts.buckets.all()) {
    const auto owner = parts.identities.find_account(bucket->owner_id);
    list.push_back({{"name", name},
                    {"owner_id", bucket->owner_id},
                    {"owner", owner ? owner->name : std::string()},
                    {"created_ms", bucket->created_ms},
                    {"region", bucket->region},
                    {"objects_at_checkpoint", parts.engine.space_objects(bucket->space)},
                    {"bytes_at_checkpoint", parts.engine.space_bytes(bucket->space)}});
  }
  co_return json{{"buckets", std::move(list)}};
}

// The JSON library throws on a field of another type than asked for; that ends here.
template <class Run>
Answer guarded(Run&& run) {
  try {
    return run();
  } catch (const json::exception&) {
    return fail(Code::kInvalid, "a field of the request has a wrong type");
  }
}

Task<Answer> scrub_command(Parts& parts, json request) {
  storage::Maintenance* maintenance = parts.engine.maintenance();
  if (maintenance == nullptr) co_return fail(Code::kInvalid, "this engine has no scrub");
  co_return guarded([&] {
    const auto name = request.at("command").get<std::string>();
    return run_scrub_command(*maintenance, parts.buckets, std::string_view(name).substr(6),
                             request);
  });
}

Task<Answer> snapshot_command(Parts& parts, json request) {
  storage::Maintenance* maintenance = parts.engine.maintenance();
  if (maintenance == nullptr) co_return fail(Code::kInvalid, "this engine makes no snapshots");
  co_return guarded([&] {
    const auto name = request.at("command").get<std::string>();
    return run_snapshot_command(*maintenance, std::string_view(name).substr(9));
  });
}

Task<Answer> backup_command(Parts& parts, json request) {
  storage::Maintenance* maintenance = parts.engine.maintenance();
  if (maintenance == nullptr) co_return fail(Code::kInvalid, "this engine makes no backups");
  co_return guarded([&] {
    const auto name = request.at("command").get<std::string>();
    return run_backup_command(*maintenance, std::string_view(name).substr(7), request);
  });
}

struct Command {
  std::string_view name;
  Task<Answer> (*run)(Parts&, json);
};

constexpr Command kCommands[] = {
    {"status", status},
    {"account.create", account_create},
    {"account.list", account_list},
    {"key.create", key_create},
    {"key.list", key_list},
    {"key.disable", key_disable},
    {"key.enable", key_enable},
    {"key.remove", key_remove},
    {"bucket.list", bucket_list},
    {"scrub.start", scrub_command},
    {"scrub.pause", scrub_command},
    {"scrub.resume", scrub_command},
    {"scrub.cancel", scrub_command},
    {"scrub.status", scrub_command},
    {"snapshot.create", snapshot_command},
    {"snapshot.status", snapshot_command},
    {"backup.create", backup_command},
    {"backup.cancel", backup_command},
    {"backup.status", backup_command},
};

std::string error_line(std::string_view why) {
  return json{{"ok", false}, {"error", why}}.dump(-1, ' ', true);
}

}  // namespace

Task<std::string> AdminCommands::run(std::string line) {
  json request = json::parse(line, nullptr, false);
  if (request.is_discarded() || !request.is_object())
    co_return error_line("the request is not a JSON object");
  const auto name = text(request, "command", true);
  if (!name) co_return error_line(name.error().detail);
  for (const Command& command : kCommands) {
    if (command.name != *name) continue;
    auto answer = co_await command.run(parts_, std::move(request));
    if (!answer) {
      const Error& error = answer.error();
      co_return error_line(error.detail.empty() ? code_name(error.code)
                                                : std::string_view(error.detail));
    }
    (*answer)["ok"] = true;
    co_return answer->dump(-1, ' ', true, json::error_handler_t::replace);
  }
  co_return error_line(fmt::format("unknown command '{}'", *name));
}

}  // namespace basalt::server
