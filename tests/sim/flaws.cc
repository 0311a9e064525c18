#include "sim/flaws.h"

#include <array>
#include <cstdint>
#include <utility>

#include "sim/world.h"

namespace pensieve::sim {
namespace {

namespace asio = boost::asio;

constexpr std::array<std::pair<Flaw, std::string_view>, 8> kNames{{
    {Flaw::kNone, "none"},
    {Flaw::kAdmitsAtCritical, "admits-at-critical"},
    {Flaw::kStaysCritical, "stays-critical"},
    {Flaw::kLeaksReservation, "leaks-reservation"},
    {Flaw::kForgetsEnds, "forgets-ends"},
    {Flaw::kDropsRequests, "drops-requests"},
    {Flaw::kAnswersTwice, "answers-twice"},
    {Flaw::kMixesAnswers, "mixes-answers"},
}};

/// Every hundredth request goes wrong.
class FlawedSink final : public gateway::RequestSink {
 public:
  FlawedSink(Flaw flaw, gateway::RequestSink& sink) : flaw_(flaw), sink_(sink) {}

  asio::awaitable<void> serve(gateway::Exchange& exchange) override {
    const bool wrong = ++served_ % 100 == 0;
    if (wrong && flaw_ == Flaw::kDropsRequests) co_return;
    co_await sink_.serve(exchange);
    if (!wrong || flaw_ != Flaw::kAnswersTwice) co_return;
    gateway::HttpResponse again;  // Named: g++ 12 destroys such temporaries twice.
    co_await exchange.respond(std::move(again));
  }
  gateway::HttpResponse protocol_error(const gateway::HttpRequest& head, unsigned status,
                                       std::string message) override {
    return sink_.protocol_error(head, status, std::move(message));
  }
  std::optional<gateway::HttpResponse> refuse_unread(const gateway::HttpRequest& head) override {
    return sink_.refuse_unread(head);
  }
  gateway::HttpResponse refuse_for_shortage(const gateway::HttpRequest& head,
                                            const gateway::BufferShortage& shortage) override {
    return sink_.refuse_for_shortage(head, shortage);
  }
  gateway::BufferAccount& buffers() override { return sink_.buffers(); }

 private:
  const Flaw flaw_;
  gateway::RequestSink& sink_;
  std::uint64_t served_ = 0;
};

}  // namespace

std::string_view name(Flaw flaw) {
  for (const auto& [known, text] : kNames) {
    if (known == flaw) return text;
  }
  PENSIEVE_CHECK(false);
}

std::optional<Flaw> flaw_named(std::string_view name) {
  for (const auto& [flaw, text] : kNames) {
    if (text == name) return flaw;
  }
  return std::nullopt;
}

void adjust_for_flaw(Flaw flaw, const Machine& machine, const memory::Floors& floors,
                     SimMemorySource& source) {
  const bool is_short = machine.reading().available < floors.critical;
  if (flaw == Flaw::kAdmitsAtCritical) {
    source.fault = is_short ? SimMemorySource::Fault::kLies : SimMemorySource::Fault::kNone;
  }
  if (flaw == Flaw::kStaysCritical && is_short) source.fault = SimMemorySource::Fault::kStuck;
}

std::unique_ptr<gateway::RequestSink> flawed_sink(Flaw flaw, gateway::RequestSink& sink) {
  if (flaw != Flaw::kDropsRequests && flaw != Flaw::kAnswersTwice) return nullptr;
  return std::make_unique<FlawedSink>(flaw, sink);
}

/// Flaws of what starts workers; the others are in what the world does each moment.
void World::plant_flaw() {
  flawed_sink_ = flawed_sink(plan_.flaw, service_);
  workers_.mixes_answers = plan_.flaw == Flaw::kMixesAnswers;
  workers_.forgets_ends = plan_.flaw == Flaw::kForgetsEnds;
  if (plan_.flaw == Flaw::kLeaksReservation) {
    workers_.on_end = [this] {
      auto leaked = ledger_.try_reserve(1_MiB, machine_.total(), Bytes());
      if (leaked) leaked_.push_back(std::move(*leaked));
    };
  }
}

}  // namespace pensieve::sim
