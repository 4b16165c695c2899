// Records of the identity table: round trips, sealing, and what the table answers as changes
// arrive.
#include "auth/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/unit/auth/support.h"

namespace basalt::auth {
namespace {

using testing::Identities;
using testing::TemporaryFolder;

TEST(Sealer, CreatesAKeyFileOnlyItsOwnerReads) {
  TemporaryFolder folder;
  const std::string file = folder.path() + "/key";
  EXPECT_EQ(Sealer::open(file, false).error().code, Code::kNotFound);
  std::string sealed;
  {
    auto sealer = Sealer::open(file, true);
    ASSERT_TRUE(sealer);
    sealed = sealer->seal("secret", "key/a");
  }
  struct stat info;
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(info.st_size, 32);
  auto again = Sealer::open(file, false);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->unseal(sealed, "key/a"), std::string("secret"));
}

TEST(Sealer, RefusesAKeyFileThatOthersReadOrOfAnotherSize) {
  TemporaryFolder folder;
  const std::string file = folder.path() + "/key";
  ASSERT_TRUE(Sealer::open(file, true));
  ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
  EXPECT_EQ(Sealer::open(file, true).error().code, Code::kInvalid);
  ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
  std::ofstream(file, std::ios::app) << "x";
  EXPECT_EQ(Sealer::open(file, true).error().code, Code::kInvalid);
  EXPECT_EQ(Sealer::open(folder.path(), true).error().code, Code::kInvalid);
  EXPECT_FALSE(Sealer::open(folder.path() + "/none/key", true));
}

TEST(Sealer, OpensOnlyUnchangedUnderItsOwnNameWithItsOwnKey) {
  const Sealer sealer = testing::make_sealer(), other = testing::make_sealer();
  const std::string sealed = sealer.seal("secret", "key/a");
  EXPECT_EQ(sealed.find("secret"), std::string::npos);
  EXPECT_NE(sealed, sealer.seal("secret", "key/a"));
  EXPECT_EQ(sealer.unseal(sealed, "key/a"), std::string("secret"));
  EXPECT_FALSE(sealer.unseal(sealed, "key/b"));
  EXPECT_FALSE(other.unseal(sealed, "key/a"));
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] ^= 1;
    EXPECT_FALSE(sealer.unseal(changed, "key/a")) << i;
    EXPECT_FALSE(sealer.unseal(sealed.substr(0, i), "key/a")) << i;
  }
  EXPECT_EQ(sealer.unseal(sealer.seal("", ""), ""), std::string());
}

TEST(Records, RoundTrip) {
  const Sealer sealer = testing::make_sealer();
  const Account account{.id = "id",
                        .name = "name",
                        .display_name = "Ünï",
                        .email = "a@b",
                        .root = true,
                        .created_ms = 5};
  auto read = decode_account(as_bytes(encode_account(account)));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->id, "id");
  EXPECT_EQ(read->display_name, "Ünï");
  EXPECT_EQ(read->email, "a@b");
  EXPECT_TRUE(read->root);
  EXPECT_EQ(read->created_ms, 5);

  const AccessKey key{.access_key = "AKIA",
                      .secret_key = "12345678",
                      .account_id = "id",
                      .enabled = false,
                      .created_ms = 6};
  const std::string meta = encode_key(key, sealer);
  EXPECT_EQ(meta.find("12345678"), std::string::npos);
  auto read_key = decode_key(as_bytes(meta), sealer);
  ASSERT_TRUE(read_key);
  EXPECT_EQ(read_key->secret_key, "12345678");
  EXPECT_EQ(read_key->account_id, "id");
  EXPECT_FALSE(read_key->enabled);
  EXPECT_EQ(read_key->created_ms, 6);
}

TEST(Records, DamageIsRefusedOrHarmless) {
  const Sealer sealer = testing::make_sealer();
  const std::string account = encode_account({.id = "id", .name = "name"});
  const std::string key =
      encode_key({.access_key = "AKIA", .secret_key = "12345678", .account_id = "id"}, sealer);
  for (const std::string& meta : {account, key}) {
    for (size_t i = 0; i < meta.size(); ++i) {
      (void)decode_account(as_bytes(meta.substr(0, i)));
      (void)decode_key(as_bytes(meta.substr(0, i)), sealer);
      for (int bit = 0; bit < 8; ++bit) {
        std::string changed = meta;
        changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
        (void)decode_account(as_bytes(changed));
        if (auto read = decode_key(as_bytes(changed), sealer))
          EXPECT_EQ(read->secret_key, "12345678");
      }
    }
  }
  EXPECT_FALSE(decode_account(as_bytes(key)));
  EXPECT_FALSE(decode_key(as_bytes(account), sealer));
  EXPECT_FALSE(decode_account({}));
  EXPECT_FALSE(decode_account(as_bytes(std::string(1 << 20, 'x'))));
  EXPECT_FALSE(decode_account(as_bytes(encode_account({.id = "no/slash", .name = "name"}))));
}

TEST(Checks, Ranges) {
  for (std::string_view good : {"a", "A-b_c.9"}) EXPECT_TRUE(check_account_name(good));
  for (std::string_view bad : {"", "a b", "a/b", "ü"}) EXPECT_FALSE(check_account_name(bad));
  EXPECT_TRUE(check_account_id(std::string(64, 'f')));
  EXPECT_FALSE(check_account_id(std::string(65, 'f')));
  EXPECT_TRUE(check_access_key("abc"));
  for (std::string_view bad : {"", "ab", "a/b", "a,b", "a=b", "a b"})
    EXPECT_FALSE(check_access_key(bad));
  EXPECT_FALSE(check_access_key(std::string(129, 'a')));
  EXPECT_TRUE(check_secret_key("12345+/="));
  for (std::string_view bad : {"1234567", "1234 5678", "1234567\n"})
    EXPECT_FALSE(check_secret_key(bad));
  EXPECT_FALSE(check_secret_key(std::string(129, 'a')));
}

TEST(IdentityTable, FollowsChanges) {
  Identities identities;
  IdentityTable& table = identities.table;
  const auto alice = table.find_account("alice-id");
  ASSERT_TRUE(alice);
  EXPECT_EQ(table.find_account_by_name("alice"), alice);
  EXPECT_EQ(table.find_account_by_email("alice@example.com"), alice);
  EXPECT_EQ(table.find_key(testing::kAccessKey)->secret_key, testing::kSecretKey);
  EXPECT_EQ(table.keys_of("alice-id").size(), 1u);

  identities.add_account({.id = "alice-id", .name = "alicia", .email = "alicia@example.com"});
  EXPECT_FALSE(table.find_account_by_name("alice"));
  EXPECT_FALSE(table.find_account_by_email("alice@example.com"));
  EXPECT_EQ(table.find_account_by_name("alicia")->display_name, "alicia");
  EXPECT_EQ(alice->name, "alice");  // a request keeps what it took

  identities.add_account({.id = "bob-id", .name = "bob", .email = "alicia@example.com"});
  EXPECT_FALSE(table.find_account_by_email("alicia@example.com"));  // ambiguous
  EXPECT_EQ(table.accounts().size(), 2u);
  EXPECT_EQ(table.accounts()[0]->name, "alicia");

  identities.add_key({.access_key = "KEY2", .secret_key = "12345678", .account_id = "alice-id"});
  EXPECT_EQ(table.keys_of("alice-id").size(), 2u);
  identities.add_key({.access_key = "KEY2", .secret_key = "12345678", .account_id = "bob-id"});
  EXPECT_EQ(table.keys_of("alice-id").size(), 1u);
  EXPECT_EQ(table.keys_of("bob-id").size(), 1u);
  ASSERT_TRUE(table.apply_change("key/KEY2", std::nullopt));
  EXPECT_TRUE(table.keys_of("bob-id").empty());
  EXPECT_FALSE(table.find_key("KEY2"));
  ASSERT_TRUE(table.apply_change("account/bob-id", std::nullopt));
  EXPECT_FALSE(table.find_account("bob-id"));
  EXPECT_TRUE(table.find_account_by_email("alicia@example.com"));
  ASSERT_TRUE(table.apply_change("account/never", std::nullopt));
}

TEST(IdentityTable, RefusesForeignRecords) {
  Identities identities;
  const std::string account = encode_account({.id = "x", .name = "x"});
  EXPECT_EQ(identities.table.apply_change("account/y", as_bytes(account)).error().code,
            Code::kCorrupt);
  EXPECT_EQ(identities.table.apply_change("key/y", as_bytes(account)).error().code, Code::kCorrupt);
  EXPECT_EQ(identities.table.apply_change("other/y", as_bytes(account)).error().code,
            Code::kCorrupt);
  const std::string key = encode_key(
      {.access_key = "KEY2", .secret_key = "12345678", .account_id = "x"}, identities.sealer);
  EXPECT_EQ(identities.table.apply_change("key/KEY3", as_bytes(key)).error().code, Code::kCorrupt);
  EXPECT_FALSE(identities.table.find_key("KEY3"));
}

TEST(IdentityTable, RootOfTheOperatorWins) {
  Identities identities;
  IdentityTable& table = identities.table;
  EXPECT_FALSE(table.root());
  table.set_root({.id = "root-id", .name = "root"},
                 {.access_key = "ROOT", .secret_key = "rootsecret"});
  ASSERT_TRUE(table.root());
  EXPECT_TRUE(table.root()->root);
  EXPECT_EQ(table.find_account_by_name("root")->id, "root-id");
  EXPECT_EQ(table.find_key("ROOT")->account_id, "root-id");
  EXPECT_EQ(table.keys_of("root-id").size(), 1u);
  EXPECT_EQ(table.accounts().size(), 2u);

  identities.add_key({.access_key = "ROOT",
                      .secret_key = "other-secret",
                      .account_id = "root-id",
                      .enabled = false});
  EXPECT_EQ(table.find_key("ROOT")->secret_key, "rootsecret");
  EXPECT_EQ(table.keys_of("root-id").size(), 1u);
  identities.add_account({.id = "root-id", .name = "admin", .root = false});
  EXPECT_EQ(table.root()->name, "admin");
  EXPECT_TRUE(table.root()->root);
  EXPECT_FALSE(table.find_account_by_name("root"));
  EXPECT_EQ(table.accounts().size(), 2u);
}

TEST(IdentityTable, StoredRootIsFound) {
  Identities identities;
  identities.add_account({.id = "r", .name = "r", .root = true});
  EXPECT_EQ(identities.table.root()->id, "r");
}

}  // namespace
}  // namespace basalt::auth
