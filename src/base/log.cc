#include "base/log.h"

#include <atomic>
#include <memory>

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace pensieve::log {
namespace {

// 512 lines of about 100 bytes: some 130 KB with spdlog's fixed slots, hours of normal logging.
constexpr std::size_t kQueueLinesMax = 512;

std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = [] {
    auto unqueued = std::make_shared<spdlog::logger>(
        "pensieve", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    unqueued->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%L%$ %v");
    return unqueued;
  }();
  return instance;
}

spdlog::level::level_enum level_of(Severity severity) {
  switch (severity) {
    case Severity::kDebug:
      return spdlog::level::debug;
    case Severity::kInfo:
      return spdlog::level::info;
    case Severity::kWarning:
      return spdlog::level::warn;
    case Severity::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

void start(std::string_view program, Severity least) {
  spdlog::init_thread_pool(kQueueLinesMax, 1);
  logger() = std::make_shared<spdlog::async_logger>(
      std::string(program), std::make_shared<spdlog::sinks::stderr_color_sink_mt>(),
      spdlog::thread_pool(), spdlog::async_overflow_policy::overrun_oldest);
  logger()->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%L%$ %n: %v");
  logger()->set_level(level_of(least));
  logger()->flush_on(spdlog::level::info);
}

void stop() {
  logger().reset();
  spdlog::shutdown();
}

void write(Severity severity, std::string_view text) {
  if (logger()) logger()->log(level_of(severity), text);
}

}  // namespace pensieve::log
