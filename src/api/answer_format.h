// How an answer is written, whole or streamed: one renderer for each face of the server.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "api/error.h"
#include "api/response.h"

namespace pensieve::api {

/// Renders one answer. Calls come in this order: start(), then blocks, one at a time and by
/// ascending index, then end() or error(); or whole(), or whole_error(), or nothing at all.
///
/// Thread-safety: one thread.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  /// Of the answer; it is in each part of it.
  virtual std::string_view id() const = 0;

  virtual std::string whole(std::string_view model, std::span<const AnswerBlock> blocks,
                            const Stop& stop, const Usage& usage) = 0;
  /// What stands in the place of whole() where its status was sent before the error was known.
  virtual std::string whole_error(const ApiError& error, std::string_view request_id) = 0;

  // Complete frames of server-sent events, or nothing where this face has no such event.
  virtual std::string start(std::string_view model, const Usage& usage) = 0;
  virtual std::string ping() = 0;
  /// `block` has what is known at the start: kind, id and name.
  virtual std::string block_start(std::uint32_t index, const AnswerBlock& block) = 0;
  virtual std::string block_delta(std::uint32_t index, AnswerBlock::Kind kind,
                                  std::string_view text) = 0;
  /// Of a block of thoughts, the last thing before its stop.
  virtual std::string signature(std::uint32_t index, std::string_view signature) = 0;
  virtual std::string block_stop(std::uint32_t index) = 0;
  virtual std::string end(const Stop& stop, const Usage& usage) = 0;
  virtual std::string error(const ApiError& error, std::string_view request_id) = 0;
};

/// Anthropic's, by the functions of api/response.h.
class MessagesFormat final : public AnswerFormat {
 public:
  MessagesFormat() : id_(new_id("msg_")) {}

  std::string_view id() const override { return id_; }
  std::string whole(std::string_view model, std::span<const AnswerBlock> blocks, const Stop& stop,
                    const Usage& usage) override {
    return message_body(id_, model, blocks, stop, usage);
  }
  std::string whole_error(const ApiError& error, std::string_view request_id) override {
    return error_body(error, request_id);
  }
  std::string start(std::string_view model, const Usage& usage) override {
    return message_start_event(id_, model, usage) + ping_event();
  }
  std::string ping() override { return ping_event(); }
  std::string block_start(std::uint32_t index, const AnswerBlock& block) override;
  std::string block_delta(std::uint32_t index, AnswerBlock::Kind kind,
                          std::string_view text) override;
  std::string signature(std::uint32_t index, std::string_view signature) override {
    return signature_delta_event(index, signature);
  }
  std::string block_stop(std::uint32_t index) override { return block_stop_event(index); }
  std::string end(const Stop& stop, const Usage& usage) override {
    return message_delta_event(stop, usage) + message_stop_event();
  }
  std::string error(const ApiError& error, std::string_view request_id) override {
    return error_event(error, request_id);
  }

 private:
  const std::string id_;
};

}  // namespace pensieve::api
