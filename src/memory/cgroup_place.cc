#include "memory/cgroup_place.h"

#include <cstddef>
#include <utility>

#include <fmt/core.h>

#include "memory/kernel_text.h"

namespace pensieve::memory {
namespace {

struct Membership {
  CgroupVersion version;
  std::string_view group;
};

struct Mount {
  std::string root;   // The group that the mount point shows.
  std::string point;  // The mount point.
};

bool lists(std::string_view words, std::string_view wanted) {
  while (!words.empty()) {
    if (next_word(words, ',') == wanted) return true;
  }
  return false;
}

enum class Wanted : std::uint8_t { kMemory, kUnified };

/// Lines are `id:controllers:group`; the group may itself hold colons.
std::optional<Membership> find_membership(std::string_view text, Wanted wanted) {
  std::optional<Membership> found;
  while (const std::optional<std::string_view> line = next_line(text)) {
    const std::size_t first = line->find(':');
    if (first == std::string_view::npos) continue;
    const std::size_t second = line->find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line->substr(first + 1, second - first - 1);
    const std::string_view group = line->substr(second + 1);
    if (wanted == Wanted::kMemory && lists(controllers, "memory")) {
      return Membership{CgroupVersion::kV1, group};
    }
    if (line->starts_with("0::")) found = Membership{CgroupVersion::kV2, group};
  }
  return found;
}

/// mountinfo writes blanks and backslashes as `\040`: three octal digits.
std::string unescaped(std::string_view text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                  (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// proc(5): `id parent major:minor root point options [optional fields] - type source options`.
std::optional<Mount> parse_mount(std::string_view line, CgroupVersion version) {
  const std::size_t separator = line.find(" - ");
  if (separator == std::string_view::npos) return std::nullopt;
  std::string_view tail = line.substr(separator + 3);
  const std::string_view type = next_word(tail);
  next_word(tail);  // The source; any text.
  const std::string_view options = next_word(tail);
  if (version == CgroupVersion::kV2 ? type != "cgroup2"
                                    : type != "cgroup" || !lists(options, "memory")) {
    return std::nullopt;
  }
  for (int skipped = 0; skipped < 3; ++skipped) next_word(line);
  const std::string_view root = next_word(line);
  const std::string_view point = next_word(line);
  return Mount{unescaped(root), unescaped(point)};
}

bool climbs_out(std::string_view path) {
  while (!path.empty()) {
    if (next_word(path, '/') == "..") return true;
  }
  return false;
}

/// The part of `group` below the mount's root: "" for the root itself, else "/a/b". Empty where
/// the group lies elsewhere. A ".." (seen from another cgroup namespace) leaves the name of a
/// folder unknown, so nothing can be said of where it lies.
std::optional<std::string_view> below(std::string_view group, std::string_view root) {
  if (!group.starts_with('/') || climbs_out(group) || climbs_out(root)) return std::nullopt;
  if (group == "/") group = "";
  if (root == "/") root = "";
  if (!group.starts_with(root)) return std::nullopt;
  const std::string_view rest = group.substr(root.size());
  if (!rest.empty() && rest.front() != '/') return std::nullopt;
  return rest;
}

/// All mounts of the hierarchy. Of those at one mount point only the last: it hides the others.
std::vector<Mount> visible_mounts(std::string_view mountinfo, CgroupVersion version) {
  std::vector<Mount> mounts;
  while (const std::optional<std::string_view> line = next_line(mountinfo)) {
    std::optional<Mount> mount = parse_mount(*line, version);
    if (!mount) continue;
    std::erase_if(mounts, [&](const Mount& other) { return other.point == mount->point; });
    mounts.push_back(std::move(*mount));
  }
  return mounts;
}

CgroupPlace place_below(const Mount& mount, CgroupVersion version, std::string_view rest) {
  CgroupPlace place{version, {}};
  const std::string root = mount.root == "/" ? "" : mount.root;
  while (!rest.empty()) {
    place.groups.push_back(
        {fmt::format("{}{}", root, rest), fmt::format("{}{}", mount.point, rest)});
    rest = rest.substr(0, rest.rfind('/'));
  }
  place.groups.push_back({mount.root, mount.point});
  return place;
}

Result<std::optional<CgroupPlace>> locate(std::string_view membership, std::string_view mountinfo,
                                          Wanted wanted) {
  const std::optional<Membership> own = find_membership(membership, wanted);
  if (!own) return std::nullopt;
  // A bind mount may show less of the tree than another mount: the most enclosing groups win.
  std::optional<CgroupPlace> best;
  for (const Mount& mount : visible_mounts(mountinfo, own->version)) {
    const std::optional<std::string_view> rest = below(own->group, mount.root);
    if (!rest) continue;
    CgroupPlace place = place_below(mount, own->version, *rest);
    if (!best || place.groups.size() > best->groups.size()) best = std::move(place);
  }
  if (best) return best;
  return fail(Code::kUnavailable,
              fmt::format("this process is in the {} {}, but no mounted {} file system shows that "
                          "group, so its {} cannot be read",
                          wanted == Wanted::kMemory ? "memory cgroup" : "cgroup", own->group,
                          own->version == CgroupVersion::kV1 ? "cgroup" : "cgroup2",
                          wanted == Wanted::kMemory ? "limits" : "stalls"));
}

}  // namespace

Result<std::optional<CgroupPlace>> locate_memory_cgroup(std::string_view membership,
                                                        std::string_view mountinfo) {
  return locate(membership, mountinfo, Wanted::kMemory);
}

Result<std::optional<CgroupPlace>> locate_unified_cgroup(std::string_view membership,
                                                         std::string_view mountinfo) {
  return locate(membership, mountinfo, Wanted::kUnified);
}

}  // namespace pensieve::memory
