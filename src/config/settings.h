// Every setting of the program as a plain value. The initialisers are the defaults: the table in
// config/keys.h, the documentation in config/pensieve.toml and `pensieve config` read them here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"

namespace pensieve::config {

enum class EngineChoice : std::uint8_t {
  kAuto,  // By the kind of the model's file.
  kLlama,
  kScripted,
};

/// What an Emergency that lasts leads to, once running requests and engines have been ended.
enum class EmergencyChoice : std::uint8_t {
  kDropEngines,  // The front door stays and answers 503.
  kShutDown,     // The server ends.
};

struct Settings {
  std::string host = "127.0.0.1";
  std::uint16_t port = 7777;  // 0: any free one.
  std::string model = "SmolLM2-135M-Instruct";
  EngineChoice engine = EngineChoice::kAuto;
  std::uint32_t context = 0;  // Tokens; 0: chosen from the model and the memory.
  std::uint32_t parallel = 4;
  std::uint32_t threads = 0;  // 0: one per core.
  log::Severity log_level = log::Severity::kInfo;

  /// Floors of available memory in units of 2^30 bytes. load() proves
  /// caution > warning > critical > emergency > 0.
  struct Memory {
    double caution_gb = 3;
    double warning_gb = 2;
    double critical_gb = 1;
    double emergency_gb = 0.5;
    std::uint32_t recovery_hold_ms = 1000;
    EmergencyChoice on_emergency = EmergencyChoice::kDropEngines;
  } memory;

  struct Server {
    std::uint32_t queue_max = 64;
    std::uint32_t body_max_mb = 32;      // Units of 2^20 bytes.
    std::uint32_t buffers_max_mb = 512;  // Units of 2^20 bytes.
    std::uint32_t drain_seconds = 5;
    std::uint32_t hang_seconds = 60;
    std::string api_key;            // This or `keys` is there where `host` is not loopback.
    std::vector<std::string> keys;  // As config/api_key.h reads them; load() has.
    std::vector<std::string> allowed_origins;
  } server;

  struct Models {
    std::vector<std::string> directory;  // Never empty after load().
    std::vector<std::string> aliases;
    std::string projector;  // Empty: found beside the model; "none": none.
  } models;

  struct Worker {
    std::string program;  // Never empty after load().
  } worker;

  /// Conversations that rest, outside of the KV cache. Units of 2^30 bytes; 0: off.
  struct Cache {
    double memory_max_gb = 1;
    double disk_max_gb = 10;
    std::string directory;  // Empty after load() only where there is no home folder.
  } cache;

  struct Batches {
    std::string directory;  // Empty after load() only where there is no home folder.
  } batches;
};

std::string_view name(EngineChoice engine);     // "auto", "llama", "scripted"
std::string_view name(EmergencyChoice choice);  // "drop-engines", "shutdown"
std::string_view name(log::Severity severity);  // "debug", "info", "warning", "error"

/// True for 127.0.0.0/8, ::1 and "localhost": what only this machine can reach.
bool is_loopback(std::string_view host);

}  // namespace pensieve::config
