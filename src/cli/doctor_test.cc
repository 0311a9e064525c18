// What doctor finds, with programs and folders that the test made.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "cli/commands.h"
#include "cli/subprocess.h"
#include "cli/testing/captured_console.h"
#include "cli/testing/fake_server.h"

namespace pensieve::cli {
namespace {

namespace fs = std::filesystem;

class DoctorTest : public testing::Test {
 protected:
  DoctorTest() {
    std::string name = (fs::temp_directory_path() / "pensieve-cli-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    settings_.port = 0;
    settings_.models.directory = {folder_.string()};
    settings_.worker.program = write_program("worker",
                                             "echo 'engine scripted'; [ $1 != --protections ] || "
                                             "printf 'yes\\tno network\\tseccomp\\t\\n'");
    write_program("claude", "echo '2.1.332 (Claude Code)'");
    std::ofstream(folder_ / "tiny.gguf") << "12345";
    hooks_.serve = [](const config::LoadedSettings&) { return 0; };
    hooks_.machine = [this](const config::Settings&) { return machine_; };
    hooks_.prove_guard = [this](const config::Settings&) { return proofs_; };
  }
  ~DoctorTest() override { fs::remove_all(folder_); }

  std::string write_program(const std::string& name, const std::string& body) {
    const fs::path path = folder_ / name;
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    fs::permissions(path, fs::perms::owner_all);
    return path.string();
  }
  ExitCode examine_machine() {
    captured_.out.clear();
    return examine(settings_, "/nowhere:" + folder_.string(), hooks_, captured_.console());
  }
  bool says(const std::string& text) const { return captured_.out.find(text) != std::string::npos; }

  fs::path folder_;
  config::Settings settings_;
  std::vector<Section> machine_{{"memory", {{"available", Mark::kOk, "8.00 GB", ""}}}};
  std::vector<Proof> proofs_{{"rejects at Critical", true, "503"}};
  Hooks hooks_;
  CapturedConsole captured_;
};

TEST_F(DoctorTest, AHealthyMachinePasses) {
  EXPECT_EQ(examine_machine(), ExitCode::kOk) << captured_.out;
  EXPECT_TRUE(says("memory\n  ok   available  8.00 GB\n")) << captured_.out;
  EXPECT_TRUE(says("ok   engine   scripted\n")) << captured_.out;
  EXPECT_TRUE(says("tiny.gguf (5 B)")) << captured_.out;
  EXPECT_TRUE(says("2.1.332 (Claude Code)")) << captured_.out;
  EXPECT_TRUE(says("ok   rejects at Critical  503\n")) << captured_.out;
  EXPECT_TRUE(says("0 failed, 0 warnings\n")) << captured_.out;
}

TEST_F(DoctorTest, AWarningPassesAndAFailureDoesNot) {
  machine_[0].findings.push_back({"pressure", Mark::kWarning, "cannot be read", "ask root"});
  EXPECT_EQ(examine_machine(), ExitCode::kOk);
  EXPECT_TRUE(says("  warn pressure   cannot be read\n       -> ask root\n")) << captured_.out;
  proofs_[0].passed = false;
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
  EXPECT_TRUE(says("FAIL rejects at Critical")) << captured_.out;
  proofs_.clear();
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
}

TEST_F(DoctorTest, WhatDoesNotHoldForAWorkerIsAWarningWithWhatToDo) {
  EXPECT_EQ(examine_machine(), ExitCode::kOk);
  EXPECT_TRUE(says("worker confinement\n  ok   no network  seccomp\n")) << captured_.out;
  settings_.worker.program =
      write_program("worker",
                    "echo 'engine scripted'; [ $1 != --protections ] || "
                    "printf 'no\\treads only its model\\tlandlock: none\\tuse Linux 5.13\\n'");
  EXPECT_EQ(examine_machine(), ExitCode::kOk) << captured_.out;
  EXPECT_TRUE(says("  warn reads only its model  landlock: none\n       -> use Linux 5.13\n"))
      << captured_.out;
  settings_.worker.program = write_program("worker", "echo 'engine scripted'");
  EXPECT_EQ(examine_machine(), ExitCode::kOk);
  EXPECT_TRUE(says("install both programs together")) << captured_.out;
}

TEST_F(DoctorTest, AMissingWorkerFailsAndAMissingClaudeWarns) {
  settings_.worker.program = (folder_ / "absent").string();
  fs::remove(folder_ / "claude");
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
  EXPECT_TRUE(says("FAIL program  ")) << captured_.out;
  EXPECT_TRUE(says("-> npm install -g @anthropic-ai/claude-code@2.1.332")) << captured_.out;
  EXPECT_TRUE(says("1 failed, 2 warnings")) << captured_.out;
}

TEST_F(DoctorTest, AWorkerThatFailsIsNotTakenForOneWithoutEngines) {
  settings_.worker.program = write_program("worker", "exit 3");
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
  EXPECT_TRUE(says("--version ended with 3")) << captured_.out;
}

TEST_F(DoctorTest, WithoutModelFilesItSaysHowToGetThem) {
  fs::remove(folder_ / "tiny.gguf");
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
  EXPECT_TRUE(says("./dev setup")) << captured_.out;
}

TEST_F(DoctorTest, APensieveOnThePortIsFineAndAStrangerIsNot) {
  FakeServer server(
      {json_answer(200, R"({"service":"pensieve-anthropic-proxy","memory":{"status":"Safe"}})"),
       json_answer(200, "<html>")});
  settings_.port = server.endpoint().port;
  EXPECT_EQ(examine_machine(), ExitCode::kOk) << captured_.out;
  EXPECT_TRUE(says("a Pensieve answers: memory Safe")) << captured_.out;
  EXPECT_EQ(examine_machine(), ExitCode::kFailure);
  EXPECT_TRUE(says("another program answers there")) << captured_.out;
}

TEST_F(DoctorTest, MarksAreUnicodeOnlyWhereTheTerminalShowsIt) {
  Console console = captured_.console();
  console.unicode = true;
  EXPECT_EQ(examine(settings_, folder_.string(), hooks_, console), ExitCode::kOk);
  EXPECT_TRUE(says("  \xe2\x9c\x93 available")) << captured_.out;
}

TEST_F(DoctorTest, AProgramThatDoesNotEndIsKilledWithItsChildren) {
  const std::string program = write_program("slow", "/bin/sleep 600");
  const auto output = run_program({program}, std::chrono::milliseconds(50));
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().code, Code::kDeadlineExceeded);
}

TEST_F(DoctorTest, AProgramThatClosesItsOutputAndStaysIsKilledToo) {
  const std::string program = write_program("slow", "exec >&- 2>&-; /bin/sleep 600");
  const auto output = run_program({program}, std::chrono::milliseconds(50));
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().code, Code::kDeadlineExceeded);
}

TEST_F(DoctorTest, VersionNamesTheEnginesOfTheWorker) {
  EXPECT_EQ(show_version(settings_, captured_.console()), ExitCode::kOk);
  EXPECT_TRUE(says("pensieve ")) << captured_.out;
  EXPECT_TRUE(says("engine scripted\n")) << captured_.out;
}

}  // namespace
}  // namespace pensieve::cli
