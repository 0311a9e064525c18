// Each test protects a child process and looks at what the kernel says of it.
#if defined(__linux__)

#include "gateway/self_protection.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"

namespace pensieve::gateway {
namespace {

constexpr int kNobody = 65534;
constexpr rlim_t kLeast = 100;

/// What a child says that did `act`.
std::string in_child(const std::function<std::string()>& act) {
  std::array<int, 2> ends{};
  PENSIEVE_CHECK(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  PENSIEVE_CHECK(child >= 0);
  if (child == 0) {
    const std::string text = act();
    const ssize_t written = ::write(ends[1], text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return text;
}

std::string line_of(const Protections& all, const std::string& name) {
  for (const Protection& one : all) {
    if (one.name == name) return (one.holds ? "holds: " : "fails: ") + one.detail + one.remedy;
  }
  return "missing";
}

std::string first_word_of(const char* path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

/// CAP_SYS_RESOURCE: root has it, but in containers often does not.
bool may_lower_the_score() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("CapEff:")) return (std::stoull(line.substr(8), nullptr, 16) >> 24) & 1U;
  }
  return false;
}

TEST(SelfProtectionTest, TheScoreIsWhatTheClaimSays) {
  const std::string said = in_child([] {
    return line_of(protect_gateway(kLeast), "killed late") + "|" +
           first_word_of("/proc/self/oom_score_adj");
  });
  const bool holds = said.starts_with("holds");
  const int score = std::stoi(said.substr(said.rfind('|') + 1));
  EXPECT_EQ(holds, score <= -500) << said;
  EXPECT_EQ(holds, may_lower_the_score()) << said;
}

TEST(SelfProtectionTest, ALowerScoreThanOursIsLeftAlone) {
  if (!may_lower_the_score()) return;  // Then there is none; the test above says so.
  const std::string said = in_child([] {
    std::ofstream("/proc/self/oom_score_adj") << -900;
    return line_of(protect_gateway(kLeast), "killed late");
  });
  EXPECT_EQ(said, "holds: oom_score_adj -900");
}

TEST(SelfProtectionTest, WithoutTheRightTheScoreStaysAndThatIsSaid) {
  const std::string said = in_child([] {
    if (::getuid() == 0) {
      std::ofstream("/proc/self/oom_score_adj") << 0;
      PENSIEVE_CHECK(::setresuid(kNobody, kNobody, kNobody) == 0);
    }
    return line_of(protect_gateway(kLeast), "killed late");
  });
  EXPECT_TRUE(said.starts_with("fails: oom_score_adj ")) << said;
  EXPECT_NE(said.find("OOMScoreAdjust"), std::string::npos) << said;
}

#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // They make mlockall() a no-op.
TEST(SelfProtectionTest, WhereItMayItsMemoryIsLockedAsItIsUsed) {
  if (::getuid() != 0) return;  // The next test is about everybody else.
  const std::string said = in_child([] {
    const std::string line = line_of(protect_gateway(kLeast), "locked in memory");
    std::string locked;
    std::ifstream status("/proc/self/status");
    for (std::string text; std::getline(status, text);) {
      if (text.starts_with("VmLck:")) locked = text.substr(6);
    }
    return line + "|" + locked;
  });
  EXPECT_TRUE(said.starts_with("holds: mlockall|")) << said;
  EXPECT_GT(std::stoi(said.substr(said.rfind('|') + 1)), 0) << said;
}
#endif

TEST(SelfProtectionTest, ALockThatCouldNotGrowIsNotBegun) {
  const std::string said = in_child([] {
    const rlimit small{8U << 20, 8U << 20};
    PENSIEVE_CHECK(::setrlimit(RLIMIT_MEMLOCK, &small) == 0);
    if (::getuid() == 0) PENSIEVE_CHECK(::setresuid(kNobody, kNobody, kNobody) == 0);
    return line_of(protect_gateway(kLeast), "locked in memory");
  });
  EXPECT_TRUE(said.starts_with("fails: RLIMIT_MEMLOCK is 8192 KiB")) << said;
  EXPECT_NE(said.find("LimitMEMLOCK=infinity"), std::string::npos) << said;
}

TEST(SelfProtectionTest, DescriptorsAreRaisedToTheHardLimitAndComparedWithTheNeed) {
  const std::string said = in_child([] {
    const rlimit limit{64, 128};
    PENSIEVE_CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return line_of(protect_gateway(128), "descriptors") + "|" +
           line_of(protect_gateway(129), "descriptors");
  });
  EXPECT_TRUE(said.starts_with("holds: 128 of 128 needed|fails: 128 of 129 needed")) << said;
  EXPECT_NE(said.find("LimitNOFILE=129"), std::string::npos) << said;
}

TEST(SelfProtectionTest, NoCoreIsDumpedAndTheHardLimitStays) {
  const std::string said = in_child([] {
    rlimit before{};
    rlimit after{};
    ::getrlimit(RLIMIT_CORE, &before);
    const std::string line = line_of(protect_gateway(kLeast), "no core dumps");
    ::getrlimit(RLIMIT_CORE, &after);
    return line + (after.rlim_cur <= 1 && after.rlim_max == before.rlim_max ? " as said" : "");
  });
  EXPECT_EQ(said, "holds: RLIMIT_CORE as said");
}

}  // namespace
}  // namespace pensieve::gateway

#endif
