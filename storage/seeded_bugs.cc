#include "storage/seeded_bugs.h"

namespace basalt::storage {

#define BASALT_TEXT_OF(name) #name
#define BASALT_TEXT(name) BASALT_TEXT_OF(name)

std::string_view seeded_bug_name() { return BASALT_TEXT(BASALT_SEEDED_BUG); }

}  // namespace basalt::storage
