// A seeded stand-in for a fuzzer: whatever bytes come, the answer is a request or a 4xx.
#include <algorithm>
#include <array>
#include <random>

#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "api/raw_json.h"
#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

constexpr int kMutations = 14'000;
constexpr std::uint32_t kSeed = 1;

using Generator = std::mt19937;

std::size_t below(Generator& generator, std::size_t end) {
  return std::uniform_int_distribution<std::size_t>(0, end - 1)(generator);
}

/// One small change: a byte flipped, a piece removed, doubled, or replaced by something nasty.
void mutate(std::string& body, Generator& generator) {
  static constexpr std::array<std::string_view, 20> kNasty = {
      "\"",     "\\",       "{",         "}",    "[",        "]",           ":",
      ",",      "null",     "1e400",     "-0",   "\\ud800",  "\xFF",        "\\u0000",
      "[[[[[[", "\"text\"", "\"input\"", "true", "\"user\"", "\"tool_use\""};
  const std::size_t at = below(generator, body.size() + 1);
  const std::size_t length = std::min(below(generator, 24), body.size() - at);
  switch (below(generator, 4)) {
    case 0:
      if (at < body.size()) body[at] = static_cast<char>(below(generator, 256));
      break;
    case 1:
      body.erase(at, length);
      break;
    case 2:
      body.insert(at, body.substr(at, length));
      break;
    default:
      body.replace(at, std::min<std::size_t>(length, 4), kNasty[below(generator, kNasty.size())]);
  }
}

void expect_canonical(const engine::Prompt& prompt) {
  ASSERT_FALSE(prompt.messages.empty());
  for (std::size_t i = 0; i < prompt.messages.size(); ++i) {
    const engine::Message& message = prompt.messages[i];
    const bool may_be_empty = message.role == engine::Role::kTool || !message.calls.empty();
    EXPECT_TRUE(may_be_empty || !message.text.empty());
    if (i > 0 && message.role != engine::Role::kTool) {
      EXPECT_NE(prompt.messages[i].role, prompt.messages[i - 1].role);
    }
  }
  const engine::Message& last = prompt.messages.back();
  EXPECT_EQ(prompt.continues_last, last.role == engine::Role::kAssistant && last.calls.empty());
}

/// True where the body was taken.
bool check(const std::string& body) {
  const auto request = parse_messages_request(body);
  if (!request) {
    EXPECT_GE(request.error().status, 400U);
    EXPECT_LT(request.error().status, 500U);
    EXPECT_FALSE(request.error().message.empty());
    return false;
  }
  EXPECT_LE(request->prompt.rules.thinking_tokens_max, request->output_tokens_max);
  expect_canonical(request->prompt);
  return true;
}

TEST(MessagesFuzzTest, EveryMutationIsARequestOrARefusal) {
  Generator generator(kSeed);
  int taken = 0;
  for (int i = 0; i < kMutations; ++i) {
    std::string body(kClaudeCodeBody);
    for (std::size_t changes = 1 + below(generator, 3); changes > 0; --changes) {
      mutate(body, generator);
    }
    if (check(body)) ++taken;
    if (HasFailure()) FAIL() << "seed " << kSeed << ", mutation " << i << ":\n" << body;
  }
  // Both outcomes are met often, or the mutations prove nothing.
  EXPECT_GT(taken, kMutations / 50);
  EXPECT_LT(taken, kMutations / 2);
}

/// The raw reader finds in `text` exactly what the parser did.
void expect_same(const boost::json::value& value, std::string_view text) {
  EXPECT_EQ(boost::json::parse(compact_json(text)), value);
  if (const auto* array = value.if_array()) {
    const auto elements = raw_elements(text);
    ASSERT_EQ(elements.size(), array->size());
    for (std::size_t i = 0; i < elements.size(); ++i) expect_same((*array)[i], elements[i]);
  }
  if (const auto* object = value.if_object()) {
    for (const auto& member : *object) {
      expect_same(member.value(), raw_member(text, {member.key().data(), member.key().size()}));
    }
  }
}

TEST(MessagesFuzzTest, TheRawReaderAgreesWithTheParser) {
  Generator generator(kSeed);
  int compared = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string body(kClaudeCodeBody.substr(0, kClaudeCodeBody.find("\"system\":")));
    body += "\"z\":0}";
    mutate(body, generator);
    boost::json::error_code code;
    const boost::json::value value = boost::json::parse(body, code);
    if (code) continue;
    ++compared;
    expect_same(value, body);
    if (HasFailure()) FAIL() << "seed " << kSeed << ", mutation " << i << ":\n" << body;
  }
  EXPECT_GT(compared, 100);
}

}  // namespace
}  // namespace pensieve::api
