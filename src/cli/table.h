// Aligned columns of text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pensieve::cli {

/// Rows of equal length, the first one the heading; columns are two spaces apart, and those for
/// which `right` is true stand at their right edge. Width counts UTF-8 characters.
std::string aligned(const std::vector<std::vector<std::string>>& rows,
                    const std::vector<bool>& right);

/// "512 B", "1.5 MB", "2.25 GB" in powers of 1024; "?" where unknown.
std::string size_text(std::optional<std::uint64_t> bytes);

/// "42 s", "5 min", "3 h 20 min", "2 d 4 h"; "?" where unknown.
std::string age_text(std::optional<std::uint64_t> seconds);

}  // namespace pensieve::cli
