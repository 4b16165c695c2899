// A directory of an older format becomes one of the newest, step by step; one that cannot is
// refused with a clear line and not touched.
#include "storage/format_migrations.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "storage/files_posix.h"
#include "storage/superblock.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

TEST(FormatMigrationsTest, StepsAreMadeInOrderAndSavedEach) {
  std::vector<std::string> seen;
  const auto step = [&](const char* name) {
    return [&seen, name](const DiskPlace&, Superblock&) -> Status {
      seen.push_back(name);
      return {};
    };
  };
  const std::vector<FormatMigration> table = {
      {1, "one", step("1")}, {2, "two", step("2")}, {3, "three", step("3")}};
  Superblock superblock;
  superblock.format_version = 2;
  std::vector<uint32_t> saved;
  const auto save = [&](const Superblock& one) -> Status {
    saved.push_back(one.format_version);
    return {};
  };
  const DiskPlace place{system_disk(), -1};
  ASSERT_TRUE(migrate_format(place, superblock, 4, table, save).has_value());
  EXPECT_EQ(seen, (std::vector<std::string>{"2", "3"}));
  EXPECT_EQ(saved, (std::vector<uint32_t>{3, 4}));
  EXPECT_EQ(superblock.format_version, 4u);
  ASSERT_TRUE(migrate_format(place, superblock, 4, table, save).has_value());
  EXPECT_EQ(saved.size(), 2u);
}

TEST(FormatMigrationsTest, NoWayIsSaidBeforeTheFirstStep) {
  bool ran = false;
  const std::vector<FormatMigration> table = {
      {0, "zero", [&](const DiskPlace&, Superblock&) -> Status {
         ran = true;
         return {};
       }}};
  Superblock superblock;
  superblock.format_version = 0;
  const auto status = migrate_format({system_disk(), -1}, superblock, 2, table,
                                     [](const Superblock&) -> Status { return {}; });
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, Code::kCorrupt);
  EXPECT_NE(status.error().detail.find("format 0"), std::string::npos);
  EXPECT_FALSE(ran);
}

TEST(FormatMigrationsTest, AFailedStepLeavesTheVersion) {
  const std::vector<FormatMigration> table = {
      {1, "one", [](const DiskPlace&, Superblock&) -> Status { return fail(Code::kIo, "no"); }}};
  Superblock superblock;
  const auto status = migrate_format({system_disk(), -1}, superblock, 2, table,
                                     [](const Superblock&) -> Status { return {}; });
  EXPECT_EQ(status.error().code, Code::kIo);
  EXPECT_EQ(superblock.format_version, 1u);
}

// The directory of an engine: version 0 never was, and 2 is not yet.
TEST(FormatMigrationsTest, ADirectoryOfAnotherVersionIsRefused) {
  TemporaryDirectory temporary;
  const EngineOptions options = small_options(temporary.path() + "/data");
  {
    ASSERT_TRUE(Files::open(options).has_value());
  }
  UniqueFd directory(::open(options.directory.c_str(), O_RDONLY | O_DIRECTORY));
  auto superblock = read_superblock(directory.get());
  ASSERT_TRUE(superblock.has_value());
  for (const uint32_t version : {0u, 2u}) {
    superblock->format_version = version;
    ASSERT_TRUE(create_superblock(directory.get(), *superblock).has_value());
    const auto opened = Files::open(options);
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, Code::kCorrupt);
    EXPECT_NE(opened.error().detail.find("format " + std::to_string(version)), std::string::npos)
        << opened.error().detail;
    EXPECT_NE(opened.error().detail.find("program that wrote it"), std::string::npos);
  }
  superblock->format_version = 1;
  ASSERT_TRUE(create_superblock(directory.get(), *superblock).has_value());
  EXPECT_TRUE(Files::open(options).has_value());
}

}  // namespace
}  // namespace basalt::storage
