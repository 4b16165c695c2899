#include "storage/format_migrations.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

namespace basalt::storage {

std::span<const FormatMigration> format_migrations() { return {}; }

Status migrate_format(const DiskPlace& place, Superblock& superblock, uint32_t newest,
                      std::span<const FormatMigration> table,
                      const std::function<Status(const Superblock&)>& save) {
  // The whole way is looked for before the first step is made.
  for (uint32_t version = superblock.format_version; version < newest; ++version) {
    const bool known = std::any_of(table.begin(), table.end(),
                                   [&](const FormatMigration& one) { return one.from == version; });
    if (known) continue;
    return fail(Code::kCorrupt, fmt::format("the data directory has format {}, this program knows "
                                            "format {} and no way to it: start it "
                                            "with the program that wrote it",
                                            superblock.format_version, newest));
  }
  while (superblock.format_version < newest) {
    const auto step = std::find_if(table.begin(), table.end(), [&](const FormatMigration& one) {
      return one.from == superblock.format_version;
    });
    log_info("migrating the data directory",
             {{"from", step->from}, {"to", step->from + 1}, {"what", step->what}});
    BASALT_CHECK_OK(step->run(place, superblock));
    superblock.format_version = step->from + 1;
    BASALT_CHECK_OK(save(superblock));
  }
  return {};
}

}  // namespace basalt::storage
