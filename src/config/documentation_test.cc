// The documented settings file is the table: same keys, same defaults, nothing else.
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "config/keys.h"
#include "config/load.h"
#include "config/toml_file.h"

namespace pensieve::config {
namespace {

std::string file_text() {
  std::ifstream stream(PENSIEVE_SETTINGS_FILE);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

/// The file as a user makes it who takes every comment sign off.
std::string uncommented() {
  return std::regex_replace(file_text(), std::regex("(^|\n)#([a-z_]+ = )"), "$1$2");
}

TEST(DocumentationTest, TheFileIsWhatTheTableSays) {
  EXPECT_EQ(file_text(), documentation())
      << "write it anew: build/release/pensieve config --template > config/pensieve.toml";
}

TEST(DocumentationTest, TheFileAsItIsChangesNothing) {
  const auto entries = parse_toml(file_text(), "pensieve.toml");
  ASSERT_TRUE(entries) << entries.error().message;
  for (const TomlEntry& entry : *entries) EXPECT_EQ(entry.kind, "a section") << entry.path;
}

TEST(DocumentationTest, TheFileListsExactlyTheKeysWithTheirDefaults) {
  const auto entries = parse_toml(uncommented(), "pensieve.toml");
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), keys().size());
  for (std::size_t i = 0; i < keys().size(); ++i) {
    const Key& key = keys()[i];
    EXPECT_EQ((*entries)[i].path, key.path);
    ASSERT_TRUE((*entries)[i].value) << key.path;
    Settings settings;
    ASSERT_TRUE(store(key, *(*entries)[i].value, settings)) << key.path;
    EXPECT_EQ(text_of(key, settings), key.default_text()) << key.path;
  }
}

TEST(DocumentationTest, TheKeysFixedForUsersAreThere) {
  for (const char* path : {"host", "port", "model", "engine", "context", "parallel"}) {
    ASSERT_NE(find_key(path), nullptr) << path;
    EXPECT_EQ(find_key(path)->flag, std::string("--") + path);
  }
  const std::pair<const char*, const char*> floors[] = {{"memory.caution_gb", "3"},
                                                        {"memory.warning_gb", "2"},
                                                        {"memory.critical_gb", "1"},
                                                        {"memory.emergency_gb", "0.5"}};
  for (const auto& [path, text] : floors) {
    ASSERT_NE(find_key(path), nullptr) << path;
    EXPECT_EQ(find_key(path)->default_text(), text);
  }
  EXPECT_EQ(find_key("memory.critical_gb")->variable(), "PENSIEVE_MEMORY_CRITICAL_GB");
  EXPECT_EQ(find_key("port")->variable(), "PENSIEVE_PORT");
}

}  // namespace
}  // namespace pensieve::config
