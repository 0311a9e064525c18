// From argv to the hook or the exit status. The settings file is the test's own.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cli/cli.h"
#include "config/keys.h"

namespace pensieve::cli {
namespace {

namespace fs = std::filesystem;

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() {
    std::string name = (fs::temp_directory_path() / "pensieve-cli-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    std::ofstream(folder_ / "settings.toml") << "parallel = 7\n";
    hooks_.serve = [this](const config::LoadedSettings& loaded) {
      served_ = loaded.settings;
      return 3;
    };
    hooks_.machine = [](const config::Settings&) { return std::vector<Section>(); };
    hooks_.prove_guard = [](const config::Settings&) { return std::vector<Proof>(); };
    hooks_.plan = [](const config::Settings&, const std::optional<MemoryNow>&) {
      return PlanReport();
    };
  }
  ~CommandLineTest() override { fs::remove_all(folder_); }

  int run_with(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"pensieve", "--config", (folder_ / "settings.toml").string()});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    return run(static_cast<int>(arguments.size()), argv.data(), hooks_);
  }

  fs::path folder_;
  Hooks hooks_;
  std::optional<config::Settings> served_;
};

TEST_F(CommandLineTest, ServeGetsTheSettingsAndItsStatusIsTheProgramsOwn) {
  EXPECT_EQ(run_with({"--port", "0", "serve", "--engine", "scripted", "--host", "127.0.0.2",
                      "--model", "m", "--context", "4096"}),
            3);
  ASSERT_TRUE(served_);
  EXPECT_EQ(served_->port, 0);
  EXPECT_EQ(served_->engine, config::EngineChoice::kScripted);
  EXPECT_EQ(served_->host, "127.0.0.2");
  EXPECT_EQ(served_->model, "m");
  EXPECT_EQ(served_->context, 4096u);
  EXPECT_EQ(served_->parallel, 7u);
}

TEST_F(CommandLineTest, AFlagWinsOverTheFile) {
  EXPECT_EQ(run_with({"serve", "--parallel", "2"}), 3);
  ASSERT_TRUE(served_);
  EXPECT_EQ(served_->parallel, 2u);
}

TEST_F(CommandLineTest, WrongUsageAndWrongSettingsEndWithTwoAndServeNothing) {
  const int usage = status(ExitCode::kUsage);
  EXPECT_EQ(run_with({}), usage);
  EXPECT_EQ(run_with({"dance"}), usage);
  EXPECT_EQ(run_with({"serve", "--colour", "red"}), usage);
  EXPECT_EQ(run_with({"serve", "--port", "65536"}), usage);
  EXPECT_EQ(run_with({"serve", "--parallel"}), usage);
  EXPECT_EQ(run_with({"run", "--port", "0", "x"}), usage);
  EXPECT_EQ(run_with({"run", "--temperature", "2.5", "x"}), usage);
  std::ofstream(folder_ / "settings.toml") << "paralel = 7\n";
  EXPECT_EQ(run_with({"serve"}), usage);
  EXPECT_FALSE(served_);
}

TEST_F(CommandLineTest, HelpVersionAndSettingsEndWithZero) {
  EXPECT_EQ(run_with({"--help"}), 0);
  EXPECT_EQ(run_with({"run", "--help"}), 0);
  EXPECT_EQ(run_with({"--version"}), 0);
  EXPECT_EQ(run_with({"config"}), 0);
  EXPECT_EQ(run_with({"config", "--template"}), 0);
}

TEST_F(CommandLineTest, TheHelpOfServeHasTheFlagOfEachSettingAndWhatItDoes) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_with({"serve", "--help"}), 0);
  const std::string help = testing::internal::GetCapturedStdout();
  int listed = 0;
  for (const config::Key& key : config::keys()) {
    if (key.flag.empty()) continue;
    ++listed;
    EXPECT_NE(help.find("  " + std::string(key.flag) + " VALUE"), std::string::npos) << key.flag;
    EXPECT_NE(help.find(std::string(key.help) + " Default: " + key.default_text()),
              std::string::npos)
        << key.flag;
  }
  EXPECT_GT(listed, 5);
  EXPECT_NE(help.find("  --config FILE"), std::string::npos);
}

TEST_F(CommandLineTest, ConfigGivesAScriptTheKeyAndNothingElse) {
  std::ofstream(folder_ / "settings.toml")
      << "[server]\nkeys = [\"ci open-1 requests=1\", \"alice open-2\"]\n";
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_with({"config", "--key"}), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "open-2\n");
  std::ofstream(folder_ / "settings.toml") << "port = 7778\n";
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_with({"config", "--key"}), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

TEST_F(CommandLineTest, ExitCodesAreListedOnceEach) {
  for (const ExitCodeRow& row : kExitCodes) {
    int rows = 0;
    for (const ExitCodeRow& other : kExitCodes) rows += row.code == other.code ? 1 : 0;
    EXPECT_EQ(rows, 1) << status(row.code);
  }
}

}  // namespace
}  // namespace pensieve::cli
