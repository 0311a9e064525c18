// Routes: which request is answered by what, behind access rules and the memory guard.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "api/error.h"
#include "base/clock.h"
#include "gateway/access.h"
#include "gateway/batches.h"
#include "gateway/buffer_account.h"
#include "gateway/connection_table.h"
#include "gateway/exchange.h"
#include "gateway/key_limits.h"
#include "gateway/key_use_file.h"
#include "gateway/running_request.h"
#include "gateway/status_pages.h"
#include "gateway/traffic.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "model/pool.h"

namespace pensieve::gateway {

/// Everything between an HTTP request and the model.
///
/// Ownership: borrows all; all must outlive the service. Thread-safety: the io thread only.
class Service final : public RequestSink {
 public:
  struct Options {
    AccessRules access;
    std::vector<std::string> model_aliases;  // Other names of the model: what the user typed.
    std::uint32_t waiting_max = 64;          // Requests beyond those that the model runs at once.
    WallTime started_at{};                   // `created_at` of the models.
    BufferAccount::Options buffers;
    std::function<WallTime()> wall = wall_time;  // A test says its own.
  };

  Service(model::Pool& pool, memory::Monitor& monitor, memory::Ledger& ledger,
          const memory::Governor& governor, const Clock& clock, Options options,
          std::function<void()> on_stop);

  boost::asio::awaitable<void> serve(Exchange& exchange) override;
  HttpResponse protocol_error(const HttpRequest& head, unsigned status,
                              std::string message) override;
  std::optional<HttpResponse> refuse_unread(const HttpRequest& head) override;
  HttpResponse refuse_for_shortage(const HttpRequest& head,
                                   const BufferShortage& shortage) override;
  BufferAccount& buffers() override { return buffers_; }

  /// From now on there are message batches. Borrows the thread.
  void use_batches(const boost::asio::any_io_executor& executor, DiskThread& disk,
                   std::unique_ptr<BatchStore> store);
  /// Why there are none: what clients are told that ask for them.
  void refuse_batches(std::string why) { no_batches_ = std::move(why); }
  /// Requests of batches that run now; not among requests_active().
  std::size_t batches_running() const { return batches_ ? batches_->running() : 0; }
  /// What keys use of the day is kept in this file from now on. Borrows the thread.
  void keep_key_use(const std::string& path, const boost::asio::any_io_executor& executor,
                    DiskThread& disk) {
    key_use_ = std::make_unique<KeyUseFile>(path, limits_, executor, disk, clock_);
  }
  /// Begins to save what is not saved yet: for the end.
  void save_key_use() {
    if (key_use_) key_use_->save();
  }
  /// /metrics shows these from now on. Borrows the table.
  void show_connections(const ConnectionTable& connections) { connections_ = &connections; }
  /// Moves batches on; called after each sample of the memory, before pressure is acted on.
  void tick();

  /// From now on new messages are refused with 503; running ones go on.
  void begin_drain();
  /// Ends every running request with `error`, each in the way that its client understands.
  void end_running(const api::ApiError& error);
  /// The same for the one that came last of those that were not told to end yet. False where there
  /// is none.
  bool end_newest(const api::ApiError& error);
  /// Requests that were not told to end; some of the others may wait for a slow client.
  std::uint32_t requests_running() const;
  std::uint32_t requests_active() const { return static_cast<std::uint32_t>(running_.size()); }

 private:
  boost::asio::awaitable<void> route(Exchange& exchange, const std::string& request_id);
  boost::asio::awaitable<void> route_model_work(Exchange& exchange, const std::string& request_id);
  /// POST /v1/messages and /v1/chat/completions.
  boost::asio::awaitable<void> messages(Exchange& exchange, const std::string& request_id);
  /// Puts halves of characters in the body right, and charges what it may take while it is parsed;
  /// to be given back once that is done.
  std::expected<BufferCharge, BufferShortage> begin_parsing(Exchange& exchange);
  boost::asio::awaitable<void> count_tokens(Exchange& exchange, const std::string& request_id);
  boost::asio::awaitable<void> clear_cache(Exchange& exchange, const std::string& request_id);
  // In service_embeddings.cc.
  boost::asio::awaitable<void> embeddings(Exchange& exchange, const std::string& request_id);
  // In service_batches.cc.
  boost::asio::awaitable<void> route_batches(Exchange& exchange, const std::string& request_id);
  boost::asio::awaitable<void> create_batch(Exchange& exchange, const std::string& request_id);
  boost::asio::awaitable<void> batch_results(Exchange& exchange, const std::string& request_id,
                                             std::string_view id);
  Batches::Asker asker(const HttpRequest& request) const;
  boost::asio::awaitable<void> refuse_method(Exchange& exchange, const std::string& request_id,
                                             std::string_view allowed);
  HttpResponse models(const HttpRequest& request, const std::string& request_id);

  /// Empty where a new request may start; also counts and logs what it refuses.
  std::optional<api::ApiError> refusal();
  /// Empty where one more may run or wait.
  std::optional<api::ApiError> queue_is_full() const;
  std::expected<void, api::ApiError> check_model(std::string_view model) const;
  Headers common_headers(const std::string& request_id) const;
  /// The same, and what lets a web page of a listed origin read the answer.
  Headers headers_for(const HttpRequest& request, const std::string& request_id) const;
  HttpResponse json(unsigned status, std::string body) const;
  /// In the form of the face that `request` asks.
  HttpResponse error_response(const HttpRequest& request, const std::string& request_id,
                              const api::ApiError& error) const;
  /// With the headers of every answer, and counted.
  HttpResponse finished(const HttpRequest& request, const std::string& request_id,
                        HttpResponse response);
  api::ApiError shortage_error(const BufferShortage& shortage);
  boost::asio::awaitable<void> fail(Exchange& exchange, const std::string& request_id,
                                    const api::ApiError& error);
  boost::asio::awaitable<void> reply(Exchange& exchange, const std::string& request_id,
                                     HttpResponse response);

  model::Pool& pool_;
  memory::Monitor& monitor_;
  const Clock& clock_;
  const Options options_;
  std::function<void()> on_stop_;
  BufferAccount buffers_;
  Traffic traffic_;
  StatusPages pages_;
  KeyLimits limits_;
  std::unique_ptr<KeyUseFile> key_use_;
  bool draining_ = false;
  const ConnectionTable* connections_ = nullptr;
  std::unique_ptr<Batches> batches_;
  std::string no_batches_ = "this server keeps no batches";
  std::vector<RunningRequest*> running_;  // In messages() or embeddings() now, the newest last.
};

/// The API's error for a model that cannot be had.
api::ApiError error_for(const model::LoadFailure& failure);

}  // namespace pensieve::gateway
