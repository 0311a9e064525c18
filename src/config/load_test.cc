// Settings from every source and their order; each refusal says where the mistake stands.
#include "config/load.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "config/nearest.h"

namespace pensieve::config {
namespace {

namespace fs = std::filesystem;

class LoadTest : public testing::Test {
 protected:
  LoadTest() {
    std::string name = (fs::temp_directory_path() / "pensieve-config-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    sources_.environment["HOME"] = folder_.string();
    sources_.working_directory = (folder_ / "work").string();
    sources_.program_directory = "/opt/pensieve";
  }
  ~LoadTest() override { fs::remove_all(folder_); }

  std::string write(const std::string& text, const std::string& name = "settings.toml") {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
  }
  /// Loads with `text` as the file named by --config.
  Result<LoadedSettings> load_toml(const std::string& text) {
    sources_.flags.push_back({"--config", write(text)});
    return load(sources_);
  }
  std::string error_of_toml(const std::string& text) { return error_of(load_toml(text)); }
  std::string error() { return error_of(load(sources_)); }

  static std::string error_of(const Result<LoadedSettings>& loaded) {
    return loaded ? "no error" : loaded.error().message;
  }
  static std::string origin(const LoadedSettings& loaded, const std::string& key) {
    for (const Setting& setting : loaded.listing) {
      if (setting.key == key) return setting.origin;
    }
    return "no such key";
  }

  fs::path folder_;
  Sources sources_;
};

TEST_F(LoadTest, WithoutAnySourceTheDefaultsHold) {
  const auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.host, "127.0.0.1");
  EXPECT_EQ(loaded->settings.port, 7777);
  EXPECT_EQ(loaded->settings.memory.caution_gb, 3);
  EXPECT_EQ(loaded->settings.memory.emergency_gb, 0.5);
  EXPECT_EQ(loaded->settings.worker.program, "/opt/pensieve/pensieve-worker");
  EXPECT_EQ(loaded->settings.cache.directory, (folder_ / ".cache/pensieve/prefixes").string());
  EXPECT_EQ(loaded->settings.batches.directory,
            (folder_ / ".local/state/pensieve/batches").string());
  EXPECT_EQ(loaded->settings.models.directory,
            (std::vector<std::string>{(folder_ / "work/models").string(),
                                      (folder_ / ".cache/pensieve/models").string()}));
  EXPECT_TRUE(loaded->is_default("port"));
  EXPECT_TRUE(loaded->warnings.empty());
  EXPECT_EQ(loaded->file, "");
}

TEST_F(LoadTest, LaterSourcesWin) {
  const std::string file = write("port = 1\nparallel = 2\n\n[memory]\ncritical_gb = 1.5\n");
  sources_.environment["PENSIEVE_CONFIG"] = file;
  auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.port, 1);
  EXPECT_EQ(origin(*loaded, "port"), file + ":1");
  EXPECT_EQ(origin(*loaded, "memory.critical_gb"), file + ":5");

  sources_.environment["PENSIEVE_PORT"] = "2";
  sources_.environment["PENSIEVE_MEMORY_CRITICAL_GB"] = "1.25";
  loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.port, 2);
  EXPECT_EQ(loaded->settings.memory.critical_gb, 1.25);
  EXPECT_EQ(origin(*loaded, "port"), "PENSIEVE_PORT");

  sources_.flags.push_back({"--port", "3"});
  loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.port, 3);
  EXPECT_EQ(loaded->settings.parallel, 2u);
  EXPECT_EQ(origin(*loaded, "port"), "--port");
}

TEST_F(LoadTest, TheFileIsTheNamedOneElseTheUsersOwn) {
  const std::string own = write("port = 10\n", ".config/pensieve/pensieve.toml");
  auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->file, own);

  sources_.environment["XDG_CONFIG_HOME"] = (folder_ / "xdg").string();
  const std::string xdg = write("port = 11\n", "xdg/pensieve/pensieve.toml");
  EXPECT_EQ(load(sources_)->settings.port, 11);

  sources_.environment["PENSIEVE_CONFIG"] = write("port = 12\n", "variable.toml");
  EXPECT_EQ(load(sources_)->settings.port, 12);
  sources_.flags.push_back({"--config", write("port = 13\n", "flag.toml")});
  EXPECT_EQ(load(sources_)->settings.port, 13);
}

TEST_F(LoadTest, AFileInTheWorkingDirectoryIsNotRead) {
  write("port = 9\n[worker]\nprogram = \"/tmp/evil\"\n", "work/pensieve.toml");
  EXPECT_EQ(load(sources_)->settings.port, 7777);
}

TEST_F(LoadTest, ANamedFileMustExist) {
  sources_.environment["PENSIEVE_CONFIG"] = "/nowhere/x.toml";
  EXPECT_EQ(error(), "PENSIEVE_CONFIG: no settings file at \"/nowhere/x.toml\"");
  sources_.flags.push_back({"--config", folder_.string()});
  EXPECT_EQ(error(), folder_.string() + ": not a settings file (a regular file up to 1 MB)");
  sources_.flags[0].text = "";
  EXPECT_EQ(error(), "--config: no settings file at \"\"");
}

TEST_F(LoadTest, BrokenTomlNamesItsLine) {
  const std::string message = error_of_toml("port = 1\n\nhost = \"open\n");
  EXPECT_NE(message.find("settings.toml:3: "), std::string::npos) << message;
}

TEST_F(LoadTest, AnUnknownKeySuggestsTheNearest) {
  EXPECT_NE(error_of_toml("[memory]\ncritcal_gb = 1\n")
                .find("settings.toml:2: unknown key memory.critcal_gb; did you mean "
                      "memory.critical_gb?"),
            std::string::npos);
}

TEST_F(LoadTest, AKnownKeyInTheWrongSectionSuggestsTheRightOne) {
  EXPECT_NE(error_of_toml("\napi_key = \"x\"\n")
                .find("settings.toml:2: unknown key api_key; did you mean server.api_key?"),
            std::string::npos);
}

TEST_F(LoadTest, AnUnknownSectionIsAnErrorAndAnEmptyKnownOneIsNot) {
  EXPECT_NE(error_of_toml("[mammoth]\n").find(":1: unknown key mammoth"), std::string::npos);
  sources_.flags.clear();
  EXPECT_EQ(error_of_toml("[memory]\n[server]\n"), "no error");
}

TEST_F(LoadTest, AWrongTypeInTheFileSaysWhatIsExpected) {
  EXPECT_NE(error_of_toml("port = \"80\"\n")
                .find("settings.toml:1: port: expected a whole number from 0 to 65535, found "
                      "\"80\""),
            std::string::npos);
  sources_.flags.clear();
  EXPECT_NE(error_of_toml("[memory]\nwarning_gb = 1979-05-27\n").find("found a date or time"),
            std::string::npos);
  sources_.flags.clear();
  EXPECT_NE(error_of_toml("[server]\nallowed_origins = [1]\n")
                .find(":2: server.allowed_origins: expected a list of texts, found a list"),
            std::string::npos);
  sources_.flags.clear();
  EXPECT_NE(error_of_toml("memory = 3\n").find(":1: unknown key memory"), std::string::npos);
}

TEST_F(LoadTest, ARangeIncludesItsBoundsAndNothingBeyond) {
  for (const auto& [text, good] : {std::pair{"0", false},
                                   {"1", true},
                                   {"64", true},
                                   {"65", false},
                                   {"-1", false},
                                   {"4.0", false},
                                   {"4x", false},
                                   {" 4", false},
                                   {"99999999999999999999", false}}) {
    sources_.environment["PENSIEVE_PARALLEL"] = text;
    EXPECT_EQ(load(sources_).has_value(), good) << text;
  }
  EXPECT_EQ(error().substr(0, 19), "PENSIEVE_PARALLEL: ");
  sources_.environment["PENSIEVE_PARALLEL"] = "1";
  for (const char* text : {"nan", "inf", "-1", "0", "1e300"}) {
    sources_.environment["PENSIEVE_MEMORY_CAUTION_GB"] = text;
    EXPECT_FALSE(load(sources_)) << text;
  }
}

TEST_F(LoadTest, AWrongFlagIsNamed) {
  sources_.flags.push_back({"--engine", "vulkan"});
  EXPECT_EQ(error(), "--engine: expected one of \"auto\" \"llama\" \"scripted\", found \"vulkan\"");
}

TEST_F(LoadTest, AnEmptyVariableCountsAsNotSet) {
  sources_.environment["PENSIEVE_PORT"] = "";
  EXPECT_EQ(load(sources_)->settings.port, 7777);
}

TEST_F(LoadTest, AMistypedVariableIsAnErrorAndAForeignOneAWarning) {
  sources_.environment["PENSIEVE_BUILD_FARM"] = "x";
  sources_.environment["PENSIEVE_CLAUDE_MODEL"] = "x";
  const auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->warnings,
            std::vector<std::string>{"PENSIEVE_BUILD_FARM: unknown variable, ignored"});
  sources_.environment["PENSIEVE_MEMORY_CRITCAL_GB"] = "1";
  EXPECT_EQ(error(),
            "PENSIEVE_MEMORY_CRITCAL_GB: unknown variable; did you mean "
            "PENSIEVE_MEMORY_CRITICAL_GB?");
}

TEST_F(LoadTest, FloorsMustFallStrictly) {
  sources_.environment["PENSIEVE_MEMORY_CRITICAL_GB"] = "2";
  EXPECT_EQ(error(),
            "default: memory.warning_gb: the floors must fall from caution over warning and "
            "critical to emergency, but 2 GB is not above memory.critical_gb = 2 GB "
            "(PENSIEVE_MEMORY_CRITICAL_GB)");
  sources_.environment["PENSIEVE_MEMORY_CRITICAL_GB"] = "1.999";
  EXPECT_TRUE(load(sources_));
  sources_.environment["PENSIEVE_MEMORY_EMERGENCY_GB"] = "1.999";
  EXPECT_FALSE(load(sources_));
}

TEST_F(LoadTest, AHostThatOthersReachDemandsAnApiKeyWhichIsNeverShown) {
  sources_.flags.push_back({"--host", "0.0.0.0"});
  EXPECT_EQ(
      error(),
      "--host: host: \"0.0.0.0\" can be reached from other machines, so an API key is needed: "
      "set [server] api_key or keys (also: PENSIEVE_SERVER_API_KEY, PENSIEVE_SERVER_KEYS), or "
      "use 127.0.0.1");
  sources_.environment["PENSIEVE_SERVER_API_KEY"] = "hush-hush";
  const auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.server.api_key, "hush-hush");
  for (const Setting& setting : loaded->listing) {
    EXPECT_EQ(setting.value.find("hush"), std::string::npos) << setting.key;
  }
}

TEST_F(LoadTest, NamedKeysWillDoForAHostThatOthersReachAndAreNeverShownEither) {
  sources_.flags.push_back({"--host", "0.0.0.0"});
  sources_.environment["PENSIEVE_SERVER_KEYS"] = "a hush-1,b hush-2 requests=2";
  const auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.server.keys.size(), 2U);
  for (const Setting& setting : loaded->listing) {
    EXPECT_EQ(setting.value.find("hush"), std::string::npos) << setting.key;
  }
  sources_.environment["PENSIEVE_SERVER_KEYS"] = "a hush-1,b hush-2 request=2";
  EXPECT_EQ(error(),
            "PENSIEVE_SERVER_KEYS: server.keys: entry 2: b: expected requests=N or "
            "tokens_per_day=N from 1 on, found \"request=2\"");
}

TEST_F(LoadTest, ANamedKeyWithTheSecretOfTheApiKeyIsRefused) {
  sources_.environment["PENSIEVE_SERVER_API_KEY"] = "hush";
  sources_.environment["PENSIEVE_SERVER_KEYS"] = "bob hush-2,alice hush requests=1";
  EXPECT_EQ(error(),
            "PENSIEVE_SERVER_KEYS: server.keys: alice has the same secret as [server] api_key, so "
            "its limits would not hold");
  sources_.environment["PENSIEVE_SERVER_API_KEY"] = "hush-1";
  EXPECT_TRUE(load(sources_));
}

TEST_F(LoadTest, OnlyRealLoopbackAddressesAreLoopback) {
  for (const char* host : {"127.0.0.1", "127.255.0.9", "::1", "localhost"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"", "::", "0.0.0.0", "127.0.0", "127.0.0.1.", "127.0.0.256", "127.1",
                           "127.0.0.1.evil.example", "128.0.0.1", "10.0.0.1"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

TEST_F(LoadTest, AnOriginIsASchemeAndAHost) {
  sources_.environment["PENSIEVE_SERVER_ALLOWED_ORIGINS"] =
      "http://a:3000,https://b,chrome-extension://c,app://d.md";
  auto loaded = load(sources_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.server.allowed_origins,
            (std::vector<std::string>{"http://a:3000", "https://b", "chrome-extension://c",
                                      "app://d.md"}));
  for (const char* text :
       {"*", "localhost:3000", "http://a/", "http://", "://a", "null", "a b://c"}) {
    sources_.environment["PENSIEVE_SERVER_ALLOWED_ORIGINS"] = text;
    EXPECT_FALSE(load(sources_)) << text;
  }
}

TEST_F(LoadTest, HomeIsExpandedInPaths) {
  const auto loaded = load_toml(
      "model = \"~/a.gguf\"\n[models]\ndirectory = [\"~/m\", \"/n\"]\n[worker]\nprogram=\"~/w\"\n");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->settings.model, (folder_ / "a.gguf").string());
  EXPECT_EQ(loaded->settings.models.directory,
            (std::vector<std::string>{(folder_ / "m").string(), "/n"}));
  EXPECT_EQ(loaded->settings.worker.program, (folder_ / "w").string());
}

TEST(NearestTest, CountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("port", "port"), 0u);
  EXPECT_EQ(edit_distance("prot", "port"), 1u);
  EXPECT_EQ(edit_distance("pot", "port"), 1u);
  EXPECT_EQ(edit_distance("", "port"), 4u);
}

TEST(NearestTest, SuggestsOnlyWhatLooksLikeATypingMistake) {
  const std::vector<std::string> known{"host", "port"};
  EXPECT_EQ(nearest("prt", known), "port");
  EXPECT_EQ(nearest("zebra", known), std::nullopt);
  EXPECT_EQ(nearest(std::string(10'000, 'p'), known), std::nullopt);
}

}  // namespace
}  // namespace pensieve::config
