#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/batch_loop.h"

namespace pensieve::worker {

/// Writes down what a BatchLoop says of each request, in order.
class RecordedEvents final : public JobEvents {
 public:
  struct Story {
    std::optional<Accepted> accepted;
    std::vector<Started> started;
    std::string text;
    std::vector<Done> done;
    std::vector<Embedded> embedded;
    std::vector<Failed> failed;
    std::vector<Refused> refused;
    int ended = 0;
    bool late = false;  // Something came after an end, or an end before its time.

    std::size_t verdicts() const {
      return done.size() + embedded.size() + failed.size() + refused.size();
    }
  };

  /// Asked at each job; empty admits all.
  std::function<std::optional<Refused>(const std::function<void()>& free_memory)> memory;
  std::function<void(std::uint32_t id)> on_text;
  std::function<void(std::uint32_t id)> on_ended;

  std::map<std::uint32_t, Story> stories;
  std::map<std::uint32_t, Cleared> clears;
  std::vector<std::uint32_t> started_order;
  std::vector<std::uint32_t> done_order;
  std::uint32_t ends = 0;  // Over all requests.
  std::uint32_t load_changes = 0;
  std::vector<NeedCells> needs;
  std::vector<Resized> resizes;
  std::function<void(const NeedCells&)> on_need;

  std::optional<Refused> check_memory(const std::function<void()>& free_memory) override {
    return memory ? memory(free_memory) : std::nullopt;
  }
  void accepted(std::uint32_t id, const Accepted& accepted) override {
    open(id).accepted = accepted;
  }
  void started(std::uint32_t id, const Started& started) override {
    open(id).started.push_back(started);
    started_order.push_back(id);
  }
  void said(std::uint32_t id, const engine::AnswerPiece& piece) override {
    open(id).text += piece.text;
    if (on_text) on_text(id);
  }
  void done(std::uint32_t id, const Done& done) override {
    open(id).done.push_back(done);
    done_order.push_back(id);
  }
  void embedded(std::uint32_t id, const Embedded& embedded) override {
    open(id).embedded.push_back(embedded);
    done_order.push_back(id);
  }
  void failed(std::uint32_t id, const Failed& failed) override {
    open(id).failed.push_back(failed);
  }
  void refused(std::uint32_t id, const Refused& refused) override {
    open(id).refused.push_back(refused);
  }
  void cleared(std::uint32_t id, const Cleared& cleared) override { clears[id] = cleared; }
  void ended(std::uint32_t id) override {
    ++stories[id].ended;
    ++ends;
    if (on_ended) on_ended(id);
  }
  void need_cells(const NeedCells& need) override {
    needs.push_back(need);
    if (on_need) on_need(need);
  }
  void resized(const Resized& resized) override { resizes.push_back(resized); }
  void load_changed() override { ++load_changes; }

 private:
  Story& open(std::uint32_t id) {
    Story& story = stories[id];
    if (story.ended > 0 || story.verdicts() > 0) story.late = true;
    return story;
  }
};

}  // namespace pensieve::worker
