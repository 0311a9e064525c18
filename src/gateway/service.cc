#include "gateway/service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "api/chat_request.h"
#include "api/chat_response.h"
#include "api/json.h"
#include "api/messages.h"
#include "api/raw_json.h"
#include "api/response.h"
#include "base/log.h"
#include "gateway/message_relay.h"
#include "gateway/routes.h"
#include "memory/admission.h"
#include "memory/report.h"
#include "worker/prompt_limit.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

/// An answer to a count or a cache command comes within a step of the engine, or not at all.
constexpr Duration kControlWait = std::chrono::seconds(60);

/// Buffers are in use for as long as an upload or a step of the engine takes. Choice.
constexpr unsigned kBufferRetryAfterSeconds = 2;

/// The face that OpenAI's clients use.
constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kEmbeddings = "/v1/embeddings";

/// What a web page may read of an answer beside its body; browsers hide other headers.
constexpr std::string_view kExposedHeaders =
    "request-id, x-request-id, retry-after, x-should-retry, x-memory-status, x-available-memory-gb";

bool is_openais(const HttpRequest& request) {
  return request.path == kChat || request.path == kEmbeddings;
}

/// What is asked, and how the answer is to be written.
struct Question {
  api::MessagesRequest request;
  std::unique_ptr<api::AnswerFormat> format;
};

std::expected<Question, api::ApiError> read_question(const HttpRequest& request, WallTime now,
                                                     bool sees) {
  if (request.path == kChat) {
    auto chat = api::parse_chat_request(request.body, sees);
    if (!chat) return std::unexpected(chat.error());
    return Question{std::move(chat->messages),
                    std::make_unique<api::ChatFormat>(now, chat->include_usage)};
  }
  auto messages = api::parse_messages_request(request.body, sees);
  if (!messages) return std::unexpected(messages.error());
  return Question{*std::move(messages), std::make_unique<api::MessagesFormat>()};
}

api::ApiError error_of(const worker::CallEvent& event) {
  if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
    return api::overloaded("the model's worker ended: " + gone->description, 1);
  }
  if (const auto* frame = std::get_if<worker::Frame>(&event)) {
    if (frame->type == worker::FrameType::kFailed) {
      const auto failed = worker::decode_failed(frame->payload);
      if (!failed) return api::internal(failed.error().message);
      if (failed->code == Code::kInvalidArgument) return api::invalid_request(failed->message);
      const bool passes = failed->code == Code::kUnavailable || failed->code == Code::kOutOfMemory;
      return passes ? api::queue_full(failed->message, 5) : api::internal(failed->message);
    }
  }
  return api::overloaded("the model did not answer in time", 5);
}

}  // namespace

api::ApiError error_for(const model::LoadFailure& failure) {
  switch (failure.kind) {
    case model::LoadFailure::Kind::kNotNow:
      return api::overloaded(failure.message, 10);
    case model::LoadFailure::Kind::kInterrupted:
      return api::overloaded(failure.message, 5);
    case model::LoadFailure::Kind::kNever:
      return api::invalid_request(failure.message);
    case model::LoadFailure::Kind::kBroken:
      break;
  }
  return api::unavailable_for_good(failure.message);
}

Service::Service(model::Pool& pool, memory::Monitor& monitor, memory::Ledger& ledger,
                 const memory::Governor& governor, const Clock& clock, Options options,
                 std::function<void()> on_stop)
    : pool_(pool),
      monitor_(monitor),
      clock_(clock),
      options_(std::move(options)),
      on_stop_(std::move(on_stop)),
      buffers_(ledger, monitor, options_.buffers),
      pages_(pool, monitor, ledger, buffers_, governor, clock, traffic_),
      limits_(options_.wall) {}

asio::awaitable<void> Service::serve(Exchange& exchange) {
  const std::string request_id = api::new_id("req_");
  const auto access = check_access(exchange.request(), options_.access);
  if (!access) {
    co_await fail(exchange, request_id, access.error());
    co_return;
  }
  co_await route(exchange, request_id);
}

asio::awaitable<void> Service::route(Exchange& exchange, const std::string& request_id) {
  const HttpRequest& request = exchange.request();
  const std::string& path = request.path;
  const std::string& method = request.method;
  if (method == "OPTIONS") {
    HttpResponse response{.status = 204, .content_type = "", .body = "", .headers = {}};
    // Not "*": that leaves `authorization` out (Fetch standard, "CORS-preflight fetch").
    std::string asked(request.header("access-control-request-headers"));
    response.headers = {{"access-control-allow-methods", "GET, POST, DELETE, OPTIONS"},
                        {"access-control-allow-headers", asked.empty() ? "*" : std::move(asked)},
                        {"access-control-max-age", "600"}};
    co_await reply(exchange, request_id, std::move(response));
    co_return;
  }
  const Route* const known = find_route(path);
  if (known == nullptr) {
    const api::ApiError error = api::not_found(fmt::format("no route {}", path));
    co_return co_await fail(exchange, request_id, error);
  }
  if (!allows(*known, method)) {
    co_return co_await refuse_method(exchange, request_id, known->methods);
  }
  if (StatusPages::has(path)) {
    StatusPages::Serving serving{draining_, requests_active(), request.query, request_id, {}, {}};
    if (batches_) serving.batches = batches_->status();
    if (connections_ != nullptr) serving.connections = connections_->status();
    auto page = pages_.page(path, serving);
    co_return co_await reply(exchange, request_id, std::move(*page));
  }
  if (path.starts_with("/v1/models")) {
    co_return co_await reply(exchange, request_id, models(request, request_id));
  }
  if (path.starts_with("/v1/messages/batches")) {
    co_return co_await route_batches(exchange, request_id);
  }
  co_await route_model_work(exchange, request_id);
}

asio::awaitable<void> Service::refuse_method(Exchange& exchange, const std::string& request_id,
                                             std::string_view allowed) {
  const HttpRequest& request = exchange.request();
  const api::ApiError error =
      api::method_not_allowed(fmt::format("{} {}: use {}", request.method, request.path, allowed));
  HttpResponse response = error_response(request, request_id, error);
  response.headers.emplace_back("allow", fmt::format("{}, OPTIONS", allowed));
  co_await reply(exchange, request_id, std::move(response));
}

asio::awaitable<void> Service::route_model_work(Exchange& exchange, const std::string& request_id) {
  const std::string& path = exchange.request().path;
  if (path == "/v1/messages" || path == kChat) {
    co_return co_await messages(exchange, request_id);
  }
  if (path == kEmbeddings) co_return co_await embeddings(exchange, request_id);
  if (path == "/v1/messages/count_tokens") co_return co_await count_tokens(exchange, request_id);
  if (path == "/v1/pensieve/clear-cache") co_return co_await clear_cache(exchange, request_id);
  PENSIEVE_CHECK(path == "/v1/pensieve/stop");
  co_await reply(exchange, request_id, json(200, R"({"status":"stopping"})"));
  on_stop_();
}

std::optional<api::ApiError> Service::refusal() {
  if (draining_) return api::overloaded("the server is shutting down", 5);
  const memory::Monitor::Status status = monitor_.check();
  const memory::Admission admission = memory::decide(status);
  if (const auto* refuse = std::get_if<memory::Refuse>(&admission)) {
    ++traffic_.refusals[refuse->level];
    log::warning("refused: {} [{}]", refuse->reason, memory::describe(status));
    return api::overloaded(refuse->reason, static_cast<unsigned>(refuse->retry_after.count()));
  }
  if (std::get<memory::Admit>(admission).warn) {
    log::warning("memory is short: {}GB available ({}); the request goes on",
                 memory::available_memory_header(status), status.limited_by);
  }
  return std::nullopt;
}

std::optional<api::ApiError> Service::queue_is_full() const {
  if (requests_active() < pool_.sequences_max() + options_.waiting_max) return std::nullopt;
  return api::queue_full(
      fmt::format("{} requests are being answered or waiting already", requests_active()), 5);
}

void Service::end_running(const api::ApiError& error) {
  while (end_newest(error)) {
  }
}

bool Service::end_newest(const api::ApiError& error) {
  const auto newest = std::find_if(running_.rbegin(), running_.rend(),
                                   [](const RunningRequest* one) { return !one->ends_early(); });
  if (newest == running_.rend()) return false;
  (*newest)->end_early(error);
  return true;
}

std::uint32_t Service::requests_running() const {
  const auto running = std::count_if(running_.begin(), running_.end(),
                                     [](const RunningRequest* one) { return !one->ends_early(); });
  return static_cast<std::uint32_t>(running);
}

std::expected<void, api::ApiError> Service::check_model(std::string_view model) const {
  // Claude Code asks for several claude-* models; all of them are the one that is here.
  if (model == pool_.model().id || model.starts_with("claude-")) return {};
  const auto& aliases = options_.model_aliases;
  if (std::find(aliases.begin(), aliases.end(), model) != aliases.end()) return {};
  return std::unexpected(
      api::not_found(fmt::format("model: {} (this server has {})", model, pool_.model().id)));
}

std::expected<BufferCharge, BufferShortage> Service::begin_parsing(Exchange& exchange) {
  api::replace_lone_surrogates(exchange.request_body());
  return buffers_.try_charge(Bytes(api::parse_memory_bytes_max(exchange.request().body.size())));
}

asio::awaitable<void> Service::messages(Exchange& exchange, const std::string& request_id) {
  if (const auto refused = refusal()) co_return co_await fail(exchange, request_id, *refused);
  const ApiKey key = key_of(exchange.request(), options_.access);
  const auto within_limits = limits_.try_run(key);
  if (!within_limits) co_return co_await fail(exchange, request_id, within_limits.error());
  auto parsing = begin_parsing(exchange);
  if (!parsing) co_return co_await fail(exchange, request_id, shortage_error(parsing.error()));
  auto question = read_question(exchange.request(), options_.wall(), pool_.model().sees());
  parsing->give_back();
  exchange.release_body();
  if (!question) co_return co_await fail(exchange, request_id, question.error());
  if (const auto known = check_model(question->request.model); !known) {
    co_return co_await fail(exchange, request_id, known.error());
  }
  if (const auto full = queue_is_full()) co_return co_await fail(exchange, request_id, *full);
  MessageRelay relay(exchange, pool_, clock_, traffic_, std::move(question->request), request_id,
                     headers_for(exchange.request(), request_id), *question->format);
  const Listed listed(running_, relay);
  if (batches_running() > 0) tick();  // They give their place back before it is asked for.
  const std::optional<api::ApiError> error = co_await relay.run();
  limits_.spend(key.name, relay.tokens());
  if (error) co_await fail(exchange, request_id, *error);
}

asio::awaitable<void> Service::count_tokens(Exchange& exchange, const std::string& request_id) {
  if (const auto refused = refusal()) co_return co_await fail(exchange, request_id, *refused);
  auto parsing = begin_parsing(exchange);
  if (!parsing) co_return co_await fail(exchange, request_id, shortage_error(parsing.error()));
  const auto request =
      api::parse_count_tokens_request(exchange.request().body, pool_.model().sees());
  parsing->give_back();
  exchange.release_body();
  if (!request) co_return co_await fail(exchange, request_id, request.error());
  if (const auto known = check_model(request->model); !known) {
    co_return co_await fail(exchange, request_id, known.error());
  }
  const std::string payload = worker::encode(request->prompt);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const model::Pool::Acquired link = co_await pool_.acquire();
    if (!link) co_return co_await fail(exchange, request_id, error_for(link.error()));
    if (const auto problem =
            worker::too_long(worker::text_bytes(request->prompt),
                             pool_.status().info->context_tokens, worker::kCountedPromptsMax)) {
      co_return co_await fail(exchange, request_id, api::invalid_request(*problem));
    }
    auto hold = std::make_shared<BufferCharge>(exchange.charge().split(Bytes(payload.size())));
    auto call = (*link)->open(worker::FrameType::kCountTokens, payload, std::move(hold));
    if (!call) {
      co_return co_await fail(exchange, request_id, api::overloaded(call.error().message, 1));
    }
    const worker::CallEvent event = co_await (*call)->next(clock_.now() + kControlWait);
    // The worker may have died before it was asked, unseen until now: that costs nobody an error.
    if (attempt == 0 && std::holds_alternative<worker::WorkerGone>(event)) continue;
    const auto* frame = std::get_if<worker::Frame>(&event);
    if (frame != nullptr && frame->type == worker::FrameType::kCounted) {
      if (const auto counted = worker::decode_counted(frame->payload)) {
        co_return co_await reply(exchange, request_id,
                                 json(200, api::count_tokens_body(counted->input_tokens)));
      }
    }
    co_return co_await fail(exchange, request_id, error_of(event));
  }
}

asio::awaitable<void> Service::clear_cache(Exchange& exchange, const std::string& request_id) {
  // No admission here: giving memory back has to work when memory is short.
  monitor_.sample();
  const std::optional<Bytes> before = monitor_.status().available;
  const std::string_view stored_too =
      exchange.request().query == "stored=true" ? worker::kClearStoredToo : std::string_view();
  worker::Cleared cleared;
  if (pool_.status().state == model::State::kReady) {
    const model::Pool::Acquired link = co_await pool_.acquire();
    if (!link) co_return co_await fail(exchange, request_id, error_for(link.error()));
    auto call = (*link)->open(worker::FrameType::kClearCache, stored_too);
    if (!call) {
      co_return co_await fail(exchange, request_id, api::overloaded(call.error().message, 1));
    }
    const worker::CallEvent event = co_await (*call)->next(clock_.now() + kControlWait);
    const auto* frame = std::get_if<worker::Frame>(&event);
    const auto told = frame != nullptr && frame->type == worker::FrameType::kCleared
                          ? worker::decode_cleared(frame->payload)
                          : ::pensieve::fail(Code::kUnavailable, "no answer");
    if (!told) co_return co_await fail(exchange, request_id, error_of(event));
    cleared = *told;
  }
  monitor_.sample();
  const std::optional<Bytes> after = monitor_.status().available;
  const auto figure = [](const std::optional<Bytes>& bytes) {
    return bytes ? json::value(bytes->count()) : json::value(nullptr);
  };
  log::info("cache cleared by hand: {} tokens dropped, {}GB came back", cleared.dropped_tokens,
            memory::gb_text(cleared.freed));
  json::object body;
  body["freed_bytes"] = cleared.freed.count();
  body["dropped_tokens"] = cleared.dropped_tokens;
  if (!stored_too.empty()) body["removed_bytes"] = cleared.stored.count();
  body["available_bytes_before"] = figure(before);
  body["available_bytes_after"] = figure(after);
  co_await reply(exchange, request_id, json(200, json::serialize(body)));
}

HttpResponse Service::models(const HttpRequest& request, const std::string& request_id) {
  const model::Pool::Status status = pool_.status();
  std::optional<std::uint32_t> window;
  std::optional<api::Capabilities> capabilities;
  if (status.info) {
    window = status.info->context_tokens;
    capabilities = {.batches = batches_ != nullptr, .engine = status.info->capabilities};
  }
  const api::Model model{.id = pool_.model().id,
                         .display_name = pool_.model().id,
                         .created_at = options_.started_at,
                         .input_tokens_max = window,
                         .output_tokens_max = window,
                         .capabilities = capabilities};
  if (request.path == "/v1/models") {
    const auto page = api::parse_page(request.query);
    if (!page) return json(page.error().status, api::error_body(page.error(), request_id));
    return json(200, api::models_body(std::span(&model, 1), *page));
  }
  const std::string id =
      api::percent_decoded(std::string_view(request.path).substr(std::size("/v1/models/") - 1));
  if (const auto known = check_model(id); !known) {
    return json(404, api::error_body(known.error(), request_id));
  }
  return json(200, api::model_body(model));
}

Headers Service::common_headers(const std::string& request_id) const {
  // The last reading is good enough here; requests that need a fresh one have just taken it.
  const memory::Monitor::Status status = monitor_.status();
  Headers headers{{"request-id", request_id},
                  {"x-request-id", request_id},  // Where OpenAI's clients look for it.
                  {"x-memory-status", std::string(memory::memory_status_header(status))},
                  {"x-available-memory-gb", memory::available_memory_header(status)}};
  std::string forecast = memory::forecast_text(monitor_.forecast());
  if (!forecast.empty()) headers.emplace_back("x-memory-forecast", std::move(forecast));
  return headers;
}

Headers Service::headers_for(const HttpRequest& request, const std::string& request_id) const {
  Headers headers = common_headers(request_id);
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && is_listed_origin(origin, options_.access)) {
    headers.emplace_back("access-control-allow-origin", origin);
    headers.emplace_back("access-control-expose-headers", kExposedHeaders);
    headers.emplace_back("vary", "origin");
  }
  return headers;
}

HttpResponse Service::json(unsigned status, std::string body) const {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

asio::awaitable<void> Service::reply(Exchange& exchange, const std::string& request_id,
                                     HttpResponse response) {
  co_await exchange.respond(finished(exchange.request(), request_id, std::move(response)));
}

HttpResponse Service::finished(const HttpRequest& request, const std::string& request_id,
                               HttpResponse response) {
  for (auto& header : headers_for(request, request_id)) {
    response.headers.push_back(std::move(header));
  }
  ++traffic_.responses[response.status];
  return response;
}

HttpResponse Service::error_response(const HttpRequest& request, const std::string& request_id,
                                     const api::ApiError& error) const {
  const bool chat = is_openais(request);
  HttpResponse response =
      json(error.status, chat ? api::chat_error_body(error) : api::error_body(error, request_id));
  if (error.should_retry) {
    response.headers.emplace_back("x-should-retry", *error.should_retry ? "true" : "false");
  }
  if (error.retry_after_seconds) {
    response.headers.emplace_back("retry-after", std::to_string(*error.retry_after_seconds));
  }
  return response;
}

asio::awaitable<void> Service::fail(Exchange& exchange, const std::string& request_id,
                                    const api::ApiError& error) {
  co_await reply(exchange, request_id, error_response(exchange.request(), request_id, error));
}

std::optional<HttpResponse> Service::refuse_unread(const HttpRequest& head) {
  const std::string request_id = api::new_id("req_");
  if (const auto access = check_access(head, options_.access); !access) {
    return finished(head, request_id, error_response(head, request_id, access.error()));
  }
  const bool needs_memory = head.path == "/v1/messages" ||
                            head.path == "/v1/messages/count_tokens" ||
                            head.path == "/v1/messages/batches" || is_openais(head);
  if (!needs_memory) return std::nullopt;
  if (const auto refused = refusal()) {
    return finished(head, request_id, error_response(head, request_id, *refused));
  }
  return std::nullopt;
}

api::ApiError Service::shortage_error(const BufferShortage& shortage) {
  const std::string message = describe(shortage);
  // Also with nobody else there it would not fit: no answer to wait for.
  if (shortage.needed > shortage.bytes_max) return api::request_too_large(message);
  ++traffic_.refusals[monitor_.status().level];
  log::warning("refused: {}", message);
  return api::overloaded(message, kBufferRetryAfterSeconds);
}

HttpResponse Service::refuse_for_shortage(const HttpRequest& head, const BufferShortage& shortage) {
  const std::string request_id = api::new_id("req_");
  return finished(head, request_id, error_response(head, request_id, shortage_error(shortage)));
}

HttpResponse Service::protocol_error(const HttpRequest& head, unsigned status,
                                     std::string message) {
  const std::string request_id = api::new_id("req_");
  api::ApiError error = api::invalid_request("not a proper HTTP request: " + message);
  error.status = status;
  if (status == 408) error = api::request_timeout("the request body did not arrive in time");
  if (status == 413) {
    error = api::request_too_large("the request body is larger than this server accepts");
  }
  return finished(head, request_id, error_response(head, request_id, error));
}

}  // namespace pensieve::gateway
