// A pool with real workers and a scripted model, a fake machine and a clock that the test moves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "memory/testing/fake_memory_source.h"
#include "model/pool.h"
#include "worker/testing/io_driver.h"
#include "worker/testing/temp_folder.h"

namespace pensieve::model {

class PoolTest : public testing::Test {
 protected:
  PoolTest() {
    set_available(8_GiB);
    options_.model = {"m", folder_.at("m.script"), "scripted"};
    // Writes a line at each start, so that starts can be counted.
    options_.worker_program =
        script("worker", std::string("exec ") + PENSIEVE_WORKER_PROGRAM + " \"$@\"");
    options_.sequences_max = 2;
  }
  ~PoolTest() override {
    if (pool_) pool_->shut_down(std::chrono::minutes(1));
    EXPECT_TRUE(io_.run_dry()) << "a coroutine of the pool never ends";
  }

  /// A program that counts its start and then does this.
  std::string script(const std::string& name, const std::string& commands) {
    const std::string path =
        folder_.write(name, "#!/bin/sh\necho >> " + folder_.at("starts") + "\n" + commands + "\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  std::ptrdiff_t starts() const {
    std::ifstream file(folder_.at("starts"));
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  }

  void make_pool(const std::string& model) {
    folder_.write("m.script", model);
    pool_ = std::make_unique<Pool>(io_.io.get_executor(), io_.clock, monitor_, ledger_, options_);
  }
  /// On a machine of 16 GiB; seen at the next check.
  void set_available(Bytes available) {
    source_.set_available(available);
    io_.clock.advance(std::chrono::milliseconds(100));
  }

  Pool::Acquired acquire() { return io_.wait_for(pool_->acquire()); }
  std::shared_ptr<worker::Link> worker() {
    Pool::Acquired acquired = acquire();
    EXPECT_TRUE(acquired) << acquired.error().message;
    return acquired ? *acquired : nullptr;
  }
  LoadFailure failure() {
    const Pool::Acquired acquired = acquire();
    EXPECT_FALSE(acquired) << "it was loaded";
    return acquired ? LoadFailure{} : acquired.error();
  }
  bool wait_for_state(State state) {
    return io_.run_until([&] { return pool_->status().state == state; });
  }
  /// A request with a prompt of so many tokens, and one token of answer.
  std::unique_ptr<worker::Call> generate(worker::Link& link, std::uint32_t prompt_tokens) {
    worker::GenerateRequest request;
    std::string text;
    for (std::uint32_t i = 0; i < prompt_tokens; ++i) text += " word";
    request.prompt.messages = {{engine::Role::kUser, text}};
    request.output_tokens_max = 1;
    auto call = link.open(worker::FrameType::kGenerate, worker::encode(request));
    EXPECT_TRUE(call) << call.error().message;
    return *std::move(call);
  }
  /// The type of the frame that ends the call.
  worker::FrameType closing_frame(worker::Call& call) {
    while (true) {
      const worker::CallEvent event = io_.wait_for(call.next(TimePoint::max()));
      const auto* frame = std::get_if<worker::Frame>(&event);
      PENSIEVE_CHECK(frame != nullptr);
      const bool goes_on = frame->type == worker::FrameType::kAccepted ||
                           frame->type == worker::FrameType::kStarted ||
                           frame->type == worker::FrameType::kText;
      if (!goes_on) return frame->type;
    }
  }
  /// One tick of a governor that sees this, a quarter of a second after the last one.
  void follow(memory::Level level, Bytes available) {
    source_.set_available(available);
    io_.clock.advance(std::chrono::milliseconds(250));
    pool_->settle();
    monitor_.sample();
    memory::Situation situation;
    situation.level = level;
    situation.available = available;
    situation.engines = memory::Engines::kBusy;
    pool_->follow(governor_.step(situation, io_.clock.now()));
  }
  void expect_context(Bytes available, std::uint32_t tokens) {
    set_available(available);
    ASSERT_NE(worker(), nullptr);
    EXPECT_EQ(pool_->status().info->context_tokens, tokens);
    pool_->shut_down(std::chrono::minutes(1));
    ASSERT_TRUE(wait_for_state(State::kUnloaded));
  }

  worker::TempFolder folder_;
  worker::IoDriver io_;
  memory::FakeMemorySource source_;
  memory::Monitor monitor_{source_, io_.clock, {}};
  memory::Governor governor_{memory::Governor::Options()};
  memory::Ledger ledger_;
  Pool::Options options_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace pensieve::model
