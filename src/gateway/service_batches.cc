// The routes of message batches: HTTP around gateway/batches.h.
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "api/batches.h"
#include "api/response.h"
#include "base/log.h"
#include "gateway/service.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;

constexpr std::string_view kRoot = "/v1/messages/batches";

/// "msgbatch_1" and "cancel" of "/v1/messages/batches/msgbatch_1/cancel".
struct Place {
  std::string id;
  std::string verb;
};
Place place_of(std::string_view path) {
  path.remove_prefix(std::min(kRoot.size() + 1, path.size()));
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos) return {api::percent_decoded(path), {}};
  return {api::percent_decoded(path.substr(0, slash)), std::string(path.substr(slash + 1))};
}

}  // namespace

void Service::use_batches(const asio::any_io_executor& executor, DiskThread& disk,
                          std::unique_ptr<BatchStore> store) {
  batches_ = std::make_unique<Batches>(
      std::move(store),
      Batches::Seams{.executor = executor,
                     .disk = disk,
                     .pool = pool_,
                     .monitor = monitor_,
                     .buffers = buffers_,
                     .clock = clock_,
                     .wall = options_.wall,
                     .traffic = traffic_,
                     .interactive = [this] { return requests_active(); },
                     .has_tokens =
                         [this](std::string_view owner) {
                           const auto& keys = options_.access.keys;
                           const auto key = std::ranges::find(keys, owner, &ApiKey::name);
                           // Nobody may speak for a key that is gone; it may come back.
                           if (key == keys.end()) return keys.empty() && owner.empty();
                           return limits_.has_tokens(*key);
                         },
                     .spend = [this](std::string_view owner,
                                     std::uint64_t tokens) { limits_.spend(owner, tokens); },
                     .check_model = [this](std::string_view model) { return check_model(model); }});
}

void Service::tick() {
  if (key_use_) key_use_->tick();
  if (batches_) batches_->tick();
}

void Service::begin_drain() {
  draining_ = true;
  if (batches_) batches_->stop();
}

/// The results' address must be one that the client can reach, so it is the one that it used.
Batches::Asker Service::asker(const HttpRequest& request) const {
  const bool by_tls = request.header("x-forwarded-proto") == "https";
  const std::string_view proxied = request.header("x-forwarded-host");
  const std::string_view host = proxied.empty() ? request.header("host") : proxied;
  return {.owner = key_of(request, options_.access).name,
          .base_url =
              host.empty() ? std::string() : fmt::format("http{}://{}", by_tls ? "s" : "", host)};
}

asio::awaitable<void> Service::route_batches(Exchange& exchange, const std::string& request_id) {
  const HttpRequest& request = exchange.request();
  const Place place = place_of(request.path);
  const bool lists = request.path == kRoot;
  if (!batches_) {
    const api::ApiError error = api::unavailable_for_good(no_batches_);
    co_return co_await fail(exchange, request_id, error);
  }
  if (lists && request.method == "POST") co_return co_await create_batch(exchange, request_id);
  if (place.verb == "results") co_return co_await batch_results(exchange, request_id, place.id);
  const Batches::Asker who = asker(request);
  Batches::Answer answer;
  if (lists) {
    answer = batches_->list(request.query, who);
  } else if (place.verb == "cancel") {
    answer = co_await batches_->cancel(place.id, who);
  } else if (request.method == "DELETE") {
    answer = co_await batches_->remove(place.id, who);
  } else {
    answer = batches_->retrieve(place.id, who);
  }
  if (!answer) co_return co_await fail(exchange, request_id, answer.error());
  co_await reply(exchange, request_id, json(200, *answer));
}

asio::awaitable<void> Service::create_batch(Exchange& exchange, const std::string& request_id) {
  if (const auto refused = refusal()) co_return co_await fail(exchange, request_id, *refused);
  auto parsing = begin_parsing(exchange);
  if (!parsing) co_return co_await fail(exchange, request_id, shortage_error(parsing.error()));
  const auto requests = api::parse_batch(exchange.request().body);
  parsing->give_back();
  exchange.release_body();
  if (!requests) co_return co_await fail(exchange, request_id, requests.error());
  const Batches::Asker who = asker(exchange.request());
  const Batches::Answer created = co_await batches_->create(*requests, who);
  if (!created) co_return co_await fail(exchange, request_id, created.error());
  co_await reply(exchange, request_id, json(200, *created));
}

asio::awaitable<void> Service::batch_results(Exchange& exchange, const std::string& request_id,
                                             std::string_view id) {
  const auto path = batches_->results(id, asker(exchange.request()));
  if (!path) co_return co_await fail(exchange, request_id, path.error());
  ResultsFile file(*path);
  if (!file.usable()) {
    const api::ApiError error = api::internal("the results cannot be read");
    co_return co_await fail(exchange, request_id, error);
  }
  Headers headers = headers_for(exchange.request(), request_id);
  headers.emplace_back("content-type", "application/x-jsonl");
  ++traffic_.responses[200];
  bool open = co_await exchange.begin_stream(std::move(headers));
  const bool has_body = exchange.request().method != "HEAD";
  while (open && has_body) {
    const std::string piece = file.next();
    if (piece.empty()) break;
    open = co_await exchange.write(piece);
  }
  if (open) co_await exchange.end_stream();
}

}  // namespace pensieve::gateway
