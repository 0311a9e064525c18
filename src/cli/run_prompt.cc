// pensieve run: one streamed answer.
#include <optional>

#include <fmt/core.h>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/server_call.h"
#include "cli/sse.h"

namespace pensieve::cli {
namespace {

namespace json = boost::json;

// Loading a large model from a slow disk may come before the first byte of the answer; after it
// the server sends pings.
constexpr Duration kFirstByteTimeout = std::chrono::minutes(10);

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

/// What the stream's events add up to.
class Answer {
 public:
  Answer(const Clock& clock, const Console& console)
      : clock_(clock), console_(console), sent_at_(clock.now()) {}

  void take(const SseEvent& event) {
    const auto data = parse_json(event.data);
    if (!data) return;
    const std::string type = text_member(*data, "type");
    if (type == "content_block_delta") {
      const json::value& delta = member(*data, "delta");
      if (text_member(delta, "type") == "text_delta") print(text_member(delta, "text", ""));
    } else if (type == "message_delta") {
      output_tokens_ = count_member(member(*data, "usage"), "output_tokens");
    } else if (type == "message_stop") {
      complete_ = true;
    } else if (type == "error") {
      const json::value& error = member(*data, "error");
      error_ =
          Failure{text_member(error, "type") == "overloaded_error" ? ExitCode::kRefusedForMemory
                                                                   : ExitCode::kFailure,
                  text_member(error, "message", "the answer failed without a reason")};
    }
  }

  void end_line() const {
    if (!last_text_.empty() && !last_text_.ends_with('\n')) console_.out("\n");
  }

  /// "57 tokens, 23.4 tokens/s, first after 0.21 s"; parts that are not known are left out.
  std::string figures() const {
    std::string text = output_tokens_ ? fmt::format("{} tokens", *output_tokens_)
                       : first_at_    ? "? tokens"
                                      : "no tokens";
    if (first_at_) {
      const double span = seconds(last_at_ - *first_at_);
      // The first token is the end of the prompt's work; the rate is that of those after it.
      if (output_tokens_ && *output_tokens_ > 1 && span > 0) {
        text += fmt::format(", {:.1f} tokens/s", static_cast<double>(*output_tokens_ - 1) / span);
      }
      text += fmt::format(", first after {:.2f} s", seconds(*first_at_ - sent_at_));
    }
    return text;
  }

  bool complete() const { return complete_; }
  const std::optional<Failure>& error() const { return error_; }

 private:
  void print(const std::string& text) {
    if (text.empty()) return;
    last_at_ = clock_.now();
    if (!first_at_) first_at_ = last_at_;
    last_text_ = text;
    console_.out(console_.out_is_terminal ? without_controls(text) : text);
  }

  const Clock& clock_;
  const Console& console_;
  const TimePoint sent_at_;
  std::optional<TimePoint> first_at_;
  TimePoint last_at_;
  std::string last_text_;
  std::optional<std::uint64_t> output_tokens_;
  bool complete_ = false;
  std::optional<Failure> error_;
};

std::expected<std::string, Failure> first_model(const Endpoint& endpoint) {
  const auto listed = call(endpoint, {.target = "/v1/models?limit=1"});
  if (!listed) return std::unexpected(listed.error());
  const json::array* models = member(*listed, "data").if_array();
  if (models == nullptr || models->empty()) {
    return std::unexpected(Failure{ExitCode::kModelUnavailable, "the server lists no model"});
  }
  return text_member(models->front(), "id");
}

std::string body_of(const RunOptions& options, const std::string& model) {
  json::object body;
  body["model"] = model;
  body["max_tokens"] = options.max_tokens;
  body["stream"] = true;
  if (!options.system.empty()) body["system"] = options.system;
  if (options.temperature) body["temperature"] = *options.temperature;
  json::object message;
  message["role"] = "user";
  message["content"] = options.prompt;
  body["messages"] = json::array{message};
  return json::serialize(body);
}

}  // namespace

ExitCode run_prompt(const Endpoint& endpoint, const RunOptions& options, const Clock& clock,
                    const Console& console) {
  const auto model = options.model.empty() ? first_model(endpoint) : options.model;
  if (!model) return report(console, model.error().code, model.error().message);

  const HttpRequest request{.method = "POST",
                            .target = "/v1/messages",
                            .body = body_of(options, *model),
                            .first_byte_timeout = kFirstByteTimeout,
                            .interruptible = true};
  Answer answer(clock, console);
  SseParser parser([&](const SseEvent& event) { answer.take(event); });
  bool readable = true;
  const auto response = send(endpoint, request, [&](std::string_view bytes) {
    readable = readable && parser.feed(bytes);
  });
  answer.end_line();
  if (response && response->status / 100 != 2) {
    const Failure failure = failure_of(*response);
    return report(console, failure.code, failure.message);
  }
  if (answer.error()) return report(console, answer.error()->code, answer.error()->message);
  if (!response && response.error().kind != HttpError::Kind::kInterrupted) {
    const Failure failure = failure_of(response.error());
    return report(console, failure.code, failure.message);
  }
  const bool interrupted = !response;
  const std::string line = answer.figures() + (interrupted ? ", interrupted" : "");
  console.err(console.err_is_dimmable ? fmt::format("\x1b[2m{}\x1b[0m\n", line) : line + "\n");
  if (interrupted) return ExitCode::kInterrupted;
  if (readable && answer.complete()) return ExitCode::kOk;
  return report(console, ExitCode::kFailure, "the answer broke off before its end");
}

}  // namespace pensieve::cli
