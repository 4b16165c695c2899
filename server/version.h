#pragma once

#include <string_view>

namespace basalt::server {
constexpr std::string_view kVersion = "0.1.0";
}  // namespace basalt::server
