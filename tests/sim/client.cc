#include "sim/client.h"

#include <utility>
#include <vector>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace pensieve::sim {
namespace {

namespace asio = boost::asio;

/// As ConnectionLimits::write_max has it.
constexpr Duration kWriteMax = std::chrono::seconds(60);

std::string path_of(Ask ask) {
  switch (ask) {
    case Ask::kMessage:
    case Ask::kStream:
    case Ask::kBad:
      return "/v1/messages";
    case Ask::kCount:
      return "/v1/messages/count_tokens";
    case Ask::kClear:
      return "/v1/pensieve/clear-cache";
    case Ask::kHealth:
      return "/health";
    case Ask::kMetrics:
      return "/metrics";
  }
  PENSIEVE_CHECK(false);
}

std::string body_of(const Manner& manner) {
  const std::string messages =
      fmt::format(R"("model":"sim","messages":[{{"role":"user","content":"{}"}}])", manner.words);
  switch (manner.ask) {
    case Ask::kMessage:
      return fmt::format(R"({{{},"max_tokens":{}}})", messages, manner.output_tokens_max);
    case Ask::kStream:
      return fmt::format(R"({{{},"max_tokens":{},"stream":true}})", messages,
                         manner.output_tokens_max);
    case Ask::kCount:
      return fmt::format("{{{}}}", messages);
    case Ask::kBad:
      return R"({"model":"sim","max_tokens":0,"messages":[]})";
    default:
      return "";
  }
}

engine::Prompt prompt_of(const std::string& words) {
  engine::Prompt prompt;
  prompt.messages = {{engine::Role::kUser, words}};
  return prompt;
}

/// All that stands between `before` and the next quote.
std::vector<std::string_view> quoted(std::string_view text, std::string_view before) {
  std::vector<std::string_view> found;
  for (std::size_t at = text.find(before); at != std::string_view::npos;
       at = text.find(before, at)) {
    at += before.size();
    const std::size_t end = text.find('"', at);
    if (end == std::string_view::npos) break;
    found.push_back(text.substr(at, end - at));
  }
  return found;
}

std::string joined(std::string_view text, std::string_view before) {
  std::string all;
  for (const std::string_view part : quoted(text, before)) all += part;
  return all;
}

bool is_error_of_the_api(const std::string& body) {
  return body.find(R"("type":"error")") != std::string::npos &&
         body.find(R"("error":{"type":")") != std::string::npos;
}

}  // namespace

SimClient::SimClient(std::uint64_t id, const asio::any_io_executor& executor, const Clock& clock,
                     Manner manner)
    : id_(id),
      clock_(clock),
      manner_(std::move(manner)),
      sent_at_(clock.now()),
      reading_(executor) {
  const bool reads = manner_.ask == Ask::kHealth || manner_.ask == Ask::kMetrics;
  request_.method = reads ? "GET" : "POST";
  request_.path = path_of(manner_.ask);
  request_.headers = {{"host", "127.0.0.1"}, {"content-type", "application/json"}};
  request_.body = body_of(manner_);
  if (manner_.ask == Ask::kMessage || manner_.ask == Ask::kStream) {
    expected_ = answer_to(prompt_of(manner_.words), manner_.output_tokens_max);
  }
}

bool SimClient::charge_to(gateway::RequestSink& sink) {
  auto charged = sink.buffers().try_charge(gateway::request_bytes(request_.body.size()));
  if (charged) {
    charge_ = std::move(*charged);
    return true;
  }
  gateway::HttpResponse response = sink.refuse_for_shortage(request_, charged.error());
  ++responses_;
  status_ = response.status;
  headers_ = std::move(response.headers);
  body_ = std::move(response.body);
  is_served = true;
  return false;
}

asio::awaitable<void> SimClient::respond(gateway::HttpResponse response) {
  ++responses_;
  status_ = response.status;
  headers_ = std::move(response.headers);
  body_ = std::move(response.body);
  co_await pass();
}

asio::awaitable<bool> SimClient::begin_stream(gateway::Headers headers) {
  ++streams_begun_;
  status_ = 200;
  headers_ = std::move(headers);
  co_return co_await pass();
}

asio::awaitable<bool> SimClient::write(std::string_view data) {
  wrote_after_end_ = wrote_after_end_ || cut_ || streams_ended_ > 0;
  if (gone_) co_return false;
  body_ += data;
  co_return co_await pass();
}

asio::awaitable<bool> SimClient::end_stream() {
  ++streams_ended_;
  co_return co_await pass();
}

/// Lets time pass as long as the client does not read. Returns false where it is gone, or the
/// gateway would give it up.
asio::awaitable<bool> SimClient::pass() {
  const TimePoint give_up = clock_.now() + kWriteMax;
  while (!gone_ && manner_.stops_reading_at && clock_.now() >= *manner_.stops_reading_at &&
         clock_.now() < manner_.reads_again_at) {
    if (clock_.now() >= give_up) {
      gone_ = true;
      break;
    }
    reading_.expires_at(std::min(give_up, manner_.reads_again_at));
    co_await reading_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  co_return !gone_;
}

void SimClient::on_client_gone(std::function<void()> callback) {
  callback_ = std::move(callback);
}

void SimClient::tick() {
  if (gone_ || !manner_.hangs_up_at || clock_.now() < *manner_.hangs_up_at) return;
  gone_ = true;
  reading_.cancel();
  if (callback_) std::exchange(callback_, nullptr)();
}

std::string SimClient::header(std::string_view name) const {
  for (const auto& [key, value] : headers_) {
    if (key == name) return value;
  }
  return "";
}

std::string SimClient::judge() {
  if (responses_ + streams_begun_ > 1) return "was answered twice";
  if (wrote_after_end_ || streams_ended_ > 1) return "got more after its end";
  if (gone_) {
    ending_ = Ending::kHungUp;
    return "";
  }
  if (responses_ + streams_begun_ == 0) return "was not answered";
  if (manner_.ask == Ask::kMessage && streams_begun_ > 0) return judge_late_body();
  return streams_begun_ > 0 ? judge_stream() : judge_body();
}

/// Whether the status is one that this request can have earned.
bool SimClient::is_proper_error() const {
  if (status_ == 500 || status_ == 503 || status_ == 529) return true;
  if (status_ != 400) return false;
  if (manner_.ask == Ask::kBad) return true;
  if (body_.find("prompt is too long") != std::string::npos) {
    constexpr std::size_t kSmallestWindow = 256;
    return tokens_of(prompt_of(manner_.words)).size() >= kSmallestWindow;
  }
  return body_.find("This machine is too small for it") != std::string::npos;
}

std::string SimClient::judge_body() {
  if (status_ != 200) {
    ending_ = Ending::kErrorStatus;
    if (!is_error_of_the_api(body_)) return "got an error that is none of the API: " + body_;
    if (!is_proper_error()) return fmt::format("got status {}: {}", status_, body_);
    const std::string level = header("x-memory-status");
    if (level.empty() || header("x-available-memory-gb").empty()) {
      return "was refused without the memory headers";
    }
    return "";
  }
  ending_ = Ending::kWhole;
  switch (manner_.ask) {
    case Ask::kMessage:
      return judge_message(joined(body_, R"({"type":"text","text":")"));
    case Ask::kStream:
      return "asked for a stream and got a body";
    case Ask::kBad:
      return "was answered although it makes no sense";
    case Ask::kCount: {
      const std::size_t tokens = tokens_of(prompt_of(manner_.words)).size();
      if (body_ == fmt::format(R"({{"input_tokens":{}}})", tokens)) return "";
      return "was told a wrong number of tokens: " + body_;
    }
    default:
      return "";
  }
}

/// An unstreamed answer whose status went out early: whole, or cut off behind an error.
std::string SimClient::judge_late_body() {
  if (streams_ended_ > 0) return judge_body();
  if (!cut_) return "got an answer without an end";
  ending_ = Ending::kErrorEvent;
  return is_error_of_the_api(body_) ? "" : "was cut off without an error";
}

std::string SimClient::judge_message(const std::string& text) {
  const auto stops = quoted(body_, R"("stop_reason":")");
  const std::string_view stop = stops.empty() ? "" : stops.back();
  if (stop == "model_context_window_exceeded") {
    ending_ = Ending::kCutShort;
    return expected_.text.starts_with(text) ? "" : "got another answer than its own";
  }
  ending_ = Ending::kWhole;
  if (text != expected_.text) return "got another answer than its own, or not all of it";
  const std::string_view wanted = expected_.reaches_limit ? "max_tokens" : "end_turn";
  return stop == wanted ? "" : fmt::format("stopped for {} and not {}", stop, wanted);
}

std::string SimClient::judge_stream() {
  if (manner_.ask != Ask::kStream) return "did not ask for a stream and got one";
  if (streams_ended_ == 0) return "got a stream without an end";
  const auto events = quoted(body_, R"(data: {"type":")");
  if (events.empty() || events.front() != "message_start") return "got no message_start";
  return judge_events(std::string(events.back()));
}

std::string SimClient::judge_events(const std::string& last_event) {
  std::size_t starts = 0;
  std::size_t ends = 0;
  int open_blocks = 0;
  bool is_over = false;
  for (const std::string_view event : quoted(body_, R"(data: {"type":")")) {
    if (is_over) return "got an event after the last one";
    if (event == "message_start") ++starts;
    if (event == "content_block_start") ++open_blocks;
    if (event == "content_block_stop") --open_blocks;
    if (event == "content_block_delta" && open_blocks != 1) return "got text outside a block";
    if (event == "message_stop" || event == "error") {
      ++ends;
      is_over = true;
    }
  }
  if (starts != 1 || ends != 1) return "got not exactly one start and one end";
  const std::string text = joined(body_, R"({"type":"text_delta","text":")");
  if (last_event == "error") {
    ending_ = Ending::kErrorEvent;
    if (!is_error_of_the_api(body_)) return "got an error event without a type";
    return expected_.text.starts_with(text) ? "" : "got another answer than its own";
  }
  if (open_blocks != 0) return "got a block without an end";
  return judge_message(text);
}

}  // namespace pensieve::sim
