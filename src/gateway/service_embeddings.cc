// The route of embeddings: HTTP around gateway/embedding_relay.h.
#include <optional>
#include <string>
#include <utility>

#include <fmt/core.h>

#include "api/embeddings.h"
#include "gateway/embedding_relay.h"
#include "gateway/service.h"

namespace pensieve::gateway {

namespace asio = boost::asio;

asio::awaitable<void> Service::embeddings(Exchange& exchange, const std::string& request_id) {
  if (const auto refused = refusal()) co_return co_await fail(exchange, request_id, *refused);
  const ApiKey key = key_of(exchange.request(), options_.access);
  const auto within_limits = limits_.try_run(key);
  if (!within_limits) co_return co_await fail(exchange, request_id, within_limits.error());
  auto parsing = begin_parsing(exchange);
  if (!parsing) co_return co_await fail(exchange, request_id, shortage_error(parsing.error()));
  auto request = api::parse_embeddings_request(exchange.request().body);
  parsing->give_back();
  exchange.release_body();
  if (!request) co_return co_await fail(exchange, request_id, request.error());
  if (const auto known = check_model(request->model); !known) {
    co_return co_await fail(exchange, request_id, known.error());
  }
  if (const auto full = queue_is_full()) co_return co_await fail(exchange, request_id, *full);
  EmbeddingRelay relay(exchange, pool_, clock_, traffic_, *std::move(request), request_id);
  const Listed listed(running_, relay);
  if (batches_running() > 0) tick();  // They give their place back before it is asked for.
  auto answer = co_await relay.run();
  limits_.spend(key.name, relay.tokens());
  if (!answer) co_return;  // Nobody is there.
  if (!*answer) co_return co_await fail(exchange, request_id, answer->error());
  co_await reply(exchange, request_id, json(200, **std::move(answer)));
}

}  // namespace pensieve::gateway
