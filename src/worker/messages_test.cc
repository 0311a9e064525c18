#include "worker/messages.h"

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();

/// Quotes, escapes, a zero byte, an emoji, U+2028 and what looks like JSON.
const std::string kOdd = std::string("\"quoted\" \\ / \b\f\n\r\t \x01 ") + '\0' +
                         " \xF0\x9F\x98\x80 \xE2\x80\xA8 {\"a\":[1]} \xEF\xBF\xBF";

GenerateRequest odd_request() {
  GenerateRequest request;
  request.prompt.messages = {{engine::Role::kSystem, kOdd},
                             {engine::Role::kUser, ""},
                             {engine::Role::kAssistant, kOdd + kOdd}};
  engine::Message call{.role = engine::Role::kAssistant, .text = kOdd, .thinking = kOdd};
  call.calls = {{"toolu_1", kOdd, R"({"x":1.0})"}, {"", "f", "{}"}};
  engine::Message result{.role = engine::Role::kTool, .text = kOdd};
  result.tool_call_id = "toolu_1";
  result.tool_name = kOdd;
  request.prompt.messages.push_back(call);
  request.prompt.messages.push_back(result);
  request.prompt.continues_last = true;
  request.prompt.tools = {{kOdd, kOdd, R"({"type":"object"})", false}, {"f", "", "{}"}};
  request.prompt.rules = {engine::ToolChoice::kNamed, kOdd,  false,
                          R"({"type":"object"})",     kMost, "high"};
  request.output_tokens_max = kMost;
  request.stop_sequences = {kOdd, "\n\nHuman:"};
  request.sampling = {.temperature = 0.7F, .top_p = 0.95F, .top_k = 40, .seed = kMost};
  return request;
}

std::string prompt_payload(const std::string& messages, const std::string& continues_last,
                           const std::string& tool_choice) {
  return R"({"prompt":{"tools":[],"tool_name":"","parallel_calls":true,"json_schema":"",)"
         R"("thinking_tokens_max":0,"effort":"",)"
         R"("messages":)" +
         messages + R"(,"continues_last":)" + continues_last + R"(,"tool_choice":)" + tool_choice +
         "}}";
}

TEST(MessagesTest, HelloComesBackAsItWas) {
  const Result<Hello> hello = decode_hello(encode(
      Hello{kOdd, "0.1.0", {{"no network", true, kOdd, ""}, {kOdd, false, "why not", "do"}}}));
  ASSERT_TRUE(hello) << hello.error().message;
  EXPECT_EQ(hello->engine, kOdd);
  EXPECT_EQ(hello->version, "0.1.0");
  EXPECT_EQ(hello->protections,
            (Protections{{"no network", true, kOdd, ""}, {kOdd, false, "why not", "do"}}));
}

TEST(MessagesTest, LoadOptionsComeBackAsTheyWere) {
  const Result<engine::LoadOptions> options =
      decode_load_options(encode(engine::LoadOptions{.model_path = kOdd,
                                                     .projector_path = kOdd,
                                                     .context_tokens = kMost,
                                                     .cells = kMost - 1,
                                                     .cells_max = 7,
                                                     .sequences_max = 2,
                                                     .step_tokens_max = 3,
                                                     .threads = 0}));
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->model_path, kOdd);
  EXPECT_EQ(options->projector_path, kOdd);
  EXPECT_EQ(options->context_tokens, kMost);
  EXPECT_EQ(options->cells, kMost - 1);
  EXPECT_EQ(options->cells_max, 7U);
  EXPECT_EQ(options->sequences_max, 2U);
  EXPECT_EQ(options->step_tokens_max, 3U);
  EXPECT_EQ(options->threads, 0U);
}

TEST(MessagesTest, APlanComesBackToTheByte) {
  engine::Plan plan;
  plan.estimate = {.weights_mapped = Bytes(std::numeric_limits<std::uint64_t>::max()),
                   .weights_copied = Bytes((1ULL << 53) + 1),
                   .kv = Bytes(3),
                   .compute = Bytes(4),
                   .process = Bytes(),
                   .images = Bytes(9),
                   .grammars = Bytes(10)};
  plan.context_tokens = 5;
  plan.context_train_tokens = 6;
  plan.cells = 7;
  plan.resize_copy = Bytes((1ULL << 60) + 3);
  const Result<engine::Plan> back = decode_plan(encode(plan));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->estimate.weights_mapped, plan.estimate.weights_mapped);
  EXPECT_EQ(back->estimate.weights_copied, plan.estimate.weights_copied);
  EXPECT_EQ(back->estimate.kv, Bytes(3));
  EXPECT_EQ(back->estimate.compute, Bytes(4));
  EXPECT_EQ(back->estimate.process, Bytes());
  EXPECT_EQ(back->estimate.images, Bytes(9));
  EXPECT_EQ(back->estimate.grammars, Bytes(10));
  EXPECT_EQ(back->context_tokens, 5U);
  EXPECT_EQ(back->context_train_tokens, 6U);
  EXPECT_EQ(back->cells, 7U);
  EXPECT_EQ(back->resize_copy, plan.resize_copy);
}

TEST(MessagesTest, ModelInfoComesBackAsItWas) {
  const Result<engine::ModelInfo> info =
      decode_model_info(encode(engine::ModelInfo{kOdd, 1, 2, 3, {.thinking = true}}));
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->description, kOdd);
  EXPECT_EQ(info->context_tokens, 1U);
  EXPECT_EQ(info->context_train_tokens, 2U);
  EXPECT_EQ(info->cells, 3U);
  EXPECT_EQ(info->capabilities, engine::Capabilities{.thinking = true});
}

TEST(MessagesTest, EachCapabilityComesBackByItself) {
  for (const engine::Capabilities& one :
       {engine::Capabilities{.structured_outputs = true}, engine::Capabilities{.thinking = true},
        engine::Capabilities{.image_input = true}, engine::Capabilities{.embeddings = true}}) {
    engine::ModelInfo info;
    info.capabilities = one;
    EXPECT_EQ(decode_model_info(encode(info)).value().capabilities, one);
  }
}

TEST(MessagesTest, APromptComesBackAsItWas) {
  const engine::Prompt prompt = odd_request().prompt;
  const Result<engine::Prompt> back = decode_prompt(encode(prompt));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, prompt);
  const Result<engine::Prompt> empty = decode_prompt(encode(engine::Prompt{}));
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_TRUE(empty->messages.empty());
}

TEST(MessagesTest, ImagesComeBackWhereTheyStood) {
  engine::Message message{engine::Role::kUser, "see"};
  message.images = {{0, "image/png", "AAAA", "messages.0"}, {3, "image/gif", "BBBB", ""}};
  const engine::Prompt prompt{.messages = {message}};
  EXPECT_EQ(decode_prompt(encode(prompt)), prompt);
  message.images.back().at = 4;
  EXPECT_FALSE(decode_prompt(encode(engine::Prompt{.messages = {message}})))
      << "a place behind the text is none";
}

TEST(MessagesTest, AGenerateRequestComesBackAsItWas) {
  const GenerateRequest request = odd_request();
  const Result<GenerateRequest> back = decode_generate_request(encode(request));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->prompt, request.prompt);
  EXPECT_EQ(back->output_tokens_max, kMost);
  EXPECT_EQ(back->stop_sequences, request.stop_sequences);
  EXPECT_EQ(back->sampling.temperature, 0.7F);
  EXPECT_EQ(back->sampling.top_p, 0.95F);
  EXPECT_EQ(back->sampling.top_k, 40);
  EXPECT_EQ(back->sampling.seed, kMost);
}

TEST(MessagesTest, WhatSamplingLeavesOpenStaysOpenAndZeroIsNotOpen) {
  GenerateRequest request = odd_request();
  request.sampling = {};
  Result<GenerateRequest> back = decode_generate_request(encode(request));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_FALSE(back->sampling.temperature || back->sampling.top_p);
  EXPECT_FALSE(back->sampling.top_k || back->sampling.seed);
  request.sampling = {.temperature = 0.0F, .top_p = 1.0F, .top_k = 1, .seed = 0};
  back = decode_generate_request(encode(request));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->sampling.temperature, 0.0F);
  EXPECT_EQ(back->sampling.top_p, 1.0F);
  EXPECT_EQ(back->sampling.top_k, 1);
  EXPECT_EQ(back->sampling.seed, 0U);
}

TEST(MessagesTest, AnyTemperatureComesBackToTheBit) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> temperatures(0.0F, 2.0F);
  for (int i = 0; i < 1000; ++i) {
    GenerateRequest request;
    request.sampling.temperature = temperatures(random);
    const Result<GenerateRequest> back = decode_generate_request(encode(request));
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->sampling.temperature, request.sampling.temperature);
  }
}

TEST(MessagesTest, DoneComesBackAsItWasForEachCause) {
  for (const StopCause cause : {StopCause::kEndOfTurn, StopCause::kTokenLimit,
                                StopCause::kStopSequence, StopCause::kWindowFull}) {
    const Result<Done> done = decode_done(encode(Done{cause, kOdd, kMost, 7, 0.125, 1.0 / 3}));
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(done->cause, cause);
    EXPECT_EQ(done->stop_sequence, kOdd);
    EXPECT_EQ(done->output_tokens, kMost);
    EXPECT_EQ(done->thinking_tokens, 7U);
    EXPECT_DOUBLE_EQ(done->prefill_seconds, 0.125);
    EXPECT_DOUBLE_EQ(done->decode_seconds, 1.0 / 3);
  }
}

TEST(MessagesTest, FailedComesBackAsItWasForEachCode) {
  for (const Code code : {Code::kInvalidArgument, Code::kNotFound, Code::kUnavailable,
                          Code::kOutOfMemory, Code::kDeadlineExceeded, Code::kInternal}) {
    const Result<Failed> failed = decode_failed(encode(Failed{code, kOdd}));
    ASSERT_TRUE(failed) << failed.error().message;
    EXPECT_EQ(failed->code, code);
    EXPECT_EQ(failed->message, kOdd);
  }
}

TEST(MessagesTest, RefusedKeepsZeroAndUnknownApart) {
  const Result<Refused> zero =
      decode_refused(encode(Refused{memory::Level::kEmergency, Bytes(), kOdd}));
  ASSERT_TRUE(zero) << zero.error().message;
  EXPECT_EQ(zero->level, memory::Level::kEmergency);
  EXPECT_EQ(zero->available, Bytes());
  EXPECT_EQ(zero->reason, kOdd);
  const Result<Refused> unknown =
      decode_refused(encode(Refused{memory::Level::kCritical, std::nullopt}));
  ASSERT_TRUE(unknown) << unknown.error().message;
  EXPECT_EQ(unknown->level, memory::Level::kCritical);
  EXPECT_EQ(unknown->available, std::nullopt);
}

TEST(MessagesTest, TheSmallFiguresComeBackAsTheyWere) {
  EXPECT_EQ(decode_accepted(encode(Accepted{kMost}))->input_tokens, kMost);
  EXPECT_EQ(decode_started(encode(Started{17}))->cached_tokens, 17U);
  EXPECT_EQ(decode_counted(encode(Counted{18}))->input_tokens, 18U);
  const Result<Cleared> cleared = decode_cleared(encode(Cleared{19, 20_GiB, 21_MiB}));
  ASSERT_TRUE(cleared) << cleared.error().message;
  EXPECT_EQ(cleared->dropped_tokens, 19U);
  EXPECT_EQ(cleared->freed, 20_GiB);
  EXPECT_EQ(cleared->stored, 21_MiB);
  const PrefixStats prefixes{.stored_bytes = Bytes(11),
                             .parked = 12,
                             .stored = 13,
                             .hits = 14,
                             .misses = 15,
                             .spilled = 16,
                             .dropped = 17,
                             .corrupt = 18,
                             .disk_failing = true};
  const Result<Heartbeat> heartbeat =
      decode_heartbeat(encode(Heartbeat{1, 2, 3, 6, 7, 4_MiB, Bytes(5), Bytes(8), prefixes}));
  ASSERT_TRUE(heartbeat) << heartbeat.error().message;
  EXPECT_EQ(heartbeat->running, 1U);
  EXPECT_EQ(heartbeat->waiting, 2U);
  EXPECT_EQ(heartbeat->cached_tokens, 3U);
  EXPECT_EQ(heartbeat->cells, 6U);
  EXPECT_EQ(heartbeat->cells_used, 7U);
  EXPECT_EQ(heartbeat->parked_bytes, Bytes(8));
  EXPECT_EQ(heartbeat->prefixes, prefixes);
  EXPECT_EQ(heartbeat->resident, 4_MiB);
  EXPECT_EQ(heartbeat->anonymous, Bytes(5));
}

TEST(MessagesTest, LimitsComeBackAsTheyWere) {
  const Limits limits{.sequences_max = 3,
                      .step_tokens_max = kMost,
                      .caches_grow = false,
                      .parked_bytes_max = Bytes(std::numeric_limits<std::uint64_t>::max()),
                      .stored_bytes_max = Bytes(1)};
  const Result<Limits> back = decode_limits(encode(limits));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, limits);
  EXPECT_TRUE(decode_limits(encode(Limits{}))->caches_grow);
}

TEST(MessagesTest, WhatIsSaidOfCellsComesBackAsItWas) {
  EXPECT_EQ(decode_resize(encode(Resize{kMost}))->cells, kMost);
  const Result<NeedCells> need = decode_need_cells(encode(NeedCells{4096, 8192}));
  ASSERT_TRUE(need) << need.error().message;
  EXPECT_EQ(need->cells_now, 4096U);
  EXPECT_EQ(need->cells_wanted, 8192U);
  const Result<Resized> resized = decode_resized(encode(Resized{1, 2, 3}));
  ASSERT_TRUE(resized) << resized.error().message;
  EXPECT_EQ(resized->cells, 1U);
  EXPECT_EQ(resized->cells_used, 2U);
  EXPECT_EQ(resized->dropped_tokens, 3U);
  const Result<ResizeRefused> refused =
      decode_resize_refused(encode(ResizeRefused{memory::Level::kWarning, Bytes(), kOdd}));
  ASSERT_TRUE(refused) << refused.error().message;
  EXPECT_EQ(refused->level, memory::Level::kWarning);
  EXPECT_EQ(refused->available, Bytes()) << "zero is not unknown";
  EXPECT_EQ(refused->reason, kOdd);
  EXPECT_EQ(decode_resize_refused(encode(ResizeRefused{}))->available, std::nullopt);
}

/// One kind of payload: a good one, and whether another can be read as the same kind.
struct Kind {
  std::string name;
  std::string good;
  std::function<std::optional<Error>(std::string_view)> error_of;
};

template <class T>
Kind kind(std::string name, std::string good, Result<T> (*decode)(std::string_view)) {
  return {std::move(name), std::move(good),
          [decode](std::string_view payload) -> std::optional<Error> {
            const Result<T> result = decode(payload);
            return result ? std::nullopt : std::optional(result.error());
          }};
}

std::vector<Kind> kinds() {
  return {
      kind("hello", encode(Hello{"llama", "1"}), decode_hello),
      kind("load", encode(engine::LoadOptions{}), decode_load_options),
      kind("plan", encode(engine::Plan{}), decode_plan),
      kind("loaded", encode(engine::ModelInfo{}), decode_model_info),
      kind("prompt", encode(odd_request().prompt), decode_prompt),
      kind("generate", encode(odd_request()), decode_generate_request),
      kind("accepted", encode(Accepted{}), decode_accepted),
      kind("started", encode(Started{}), decode_started),
      kind("done", encode(Done{}), decode_done),
      kind("failed", encode(Failed{}), decode_failed),
      kind("refused", encode(Refused{}), decode_refused),
      kind("counted", encode(Counted{}), decode_counted),
      kind("cleared", encode(Cleared{}), decode_cleared),
      kind("heartbeat", encode(Heartbeat{}), decode_heartbeat),
      kind("limits", encode(Limits{}), decode_limits),
      kind("resize", encode(Resize{}), decode_resize),
      kind("resize refused", encode(ResizeRefused{}), decode_resize_refused),
      kind("need cells", encode(NeedCells{}), decode_need_cells),
      kind("resized", encode(Resized{}), decode_resized),
  };
}

void expect_refused(const Kind& kind, const std::string& payload) {
  const std::optional<Error> error = kind.error_of(payload);
  ASSERT_TRUE(error) << kind.name << " took " << payload;
  EXPECT_EQ(error->code, Code::kInvalidArgument) << kind.name << ": " << payload;
}

TEST(MessagesTest, WhatIsNoJsonObjectIsInvalid) {
  for (const Kind& kind : kinds()) {
    EXPECT_EQ(kind.error_of(kind.good), std::nullopt) << kind.name;
    for (const char* wrong : {"", "{", "null", "[]", "7", "\"text\"", "{}", "{\"a\":1}x", "\xFF"}) {
      expect_refused(kind, wrong);
    }
    expect_refused(kind, std::string(10'000, '['));
  }
}

TEST(MessagesTest, AMissingFieldIsInvalid) {
  for (const Kind& kind : kinds()) {
    // Renames one key at a time; only an optional field may be missing.
    for (std::size_t at = 0; (at = kind.good.find("\":", at)) != std::string::npos; ++at) {
      const std::size_t start = kind.good.rfind('"', at - 1);
      const std::string key = kind.good.substr(start + 1, at - start - 1);
      if (key == "temperature" || key == "top_p" || key == "top_k" || key == "seed") continue;
      if (key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") != std::string::npos) continue;
      std::string payload = kind.good;
      payload.insert(at, "_gone");
      expect_refused(kind, payload);
    }
  }
}

TEST(MessagesTest, AFieldOfTheWrongTypeOrRangeIsInvalid) {
  const auto invalid = [](const auto& result) {
    return !result && result.error().code == Code::kInvalidArgument;
  };
  EXPECT_TRUE(invalid(decode_accepted(R"({"input_tokens":-1})")));
  EXPECT_TRUE(invalid(decode_accepted(R"({"input_tokens":4294967296})")));
  EXPECT_TRUE(invalid(decode_accepted(R"({"input_tokens":1.5})")));
  EXPECT_TRUE(invalid(decode_accepted(R"({"input_tokens":"1"})")));
  EXPECT_TRUE(invalid(decode_accepted(R"({"input_tokens":null})")));
  EXPECT_TRUE(invalid(decode_hello(R"({"engine":7,"version":"1"})")));
  EXPECT_TRUE(invalid(decode_failed(R"({"code":6,"message":""})")));
  EXPECT_TRUE(invalid(decode_failed(R"({"code":256,"message":""})")));
  EXPECT_TRUE(invalid(decode_refused(R"({"level":5})")));
  EXPECT_TRUE(invalid(decode_refused(R"({"level":4,"available":-1})")));
  EXPECT_TRUE(invalid(decode_prompt(prompt_payload("{}", "false", "0"))));
  EXPECT_TRUE(invalid(decode_prompt(
      prompt_payload(R"([{"role":4,"text":"","thinking":"","calls":[]}])", "false", "0"))));
  EXPECT_TRUE(invalid(decode_prompt(prompt_payload("[]", "0", "0"))));
  EXPECT_TRUE(invalid(decode_prompt(prompt_payload("[]", "false", "4"))));
  EXPECT_FALSE(invalid(decode_prompt(prompt_payload("[]", "false", "3"))));
}

TEST(MessagesTest, AnEmptyStopSequenceIsInvalid) {
  GenerateRequest request = odd_request();
  request.stop_sequences = {"a", ""};
  const Result<GenerateRequest> back = decode_generate_request(encode(request));
  ASSERT_FALSE(back) << "it would stop every answer before its first word";
  EXPECT_EQ(back.error().code, Code::kInvalidArgument);
}

TEST(MessagesTest, UnknownFieldsAreIgnored) {
  EXPECT_EQ(decode_counted(R"({"input_tokens":3,"of_later_versions":[{}]})")->input_tokens, 3U);
}

TEST(MessagesTest, RandomlyDamagedPayloadsAreReadOrRefusedButNeverCrash) {
  std::mt19937 random(42);
  const auto pick = [&](std::size_t count) {
    return std::uniform_int_distribution<std::size_t>(0, count - 1)(random);
  };
  static constexpr std::string_view kBytes = "{}[]\",:0123456789.-+eE\\untfalsr\0\xFF\xC3";
  for (const Kind& kind : kinds()) {
    int refused = 0;
    for (int round = 0; round < 3000; ++round) {
      std::string payload = kind.good;
      for (std::size_t damage = pick(4) + 1; damage > 0 && !payload.empty(); --damage) {
        const std::size_t at = pick(payload.size());
        switch (pick(4)) {
          case 0:
            payload[at] = kBytes[pick(kBytes.size())];
            break;
          case 1:
            payload.erase(at, pick(8) + 1);
            break;
          case 2:
            payload.insert(at, payload.substr(pick(payload.size()), pick(12)));
            break;
          default:
            payload.resize(at);
        }
      }
      const std::optional<Error> error = kind.error_of(payload);
      if (!error) continue;
      ++refused;
      ASSERT_EQ(error->code, Code::kInvalidArgument);
    }
    EXPECT_GT(refused, 1000) << kind.name;
  }
}

}  // namespace
}  // namespace pensieve::worker
