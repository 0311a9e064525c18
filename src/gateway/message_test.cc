// POST /v1/messages with the real worker program: what is streamed, when, and how it ends.
// What happens when the worker dies: worker_loss_test.cc.
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Words whose tokens take long to process.
std::string long_prompt(int words) {
  std::string text = "say hello; say";
  for (int i = 0; i < words; ++i) text += " word";
  return text;
}

TestServer::Options slow_prefill() {
  TestServer::Options options;
  options.model_lines = "prefill_us_per_token 20000";  // 256 tokens, one step: 5 s.
  return options;
}

TestServer::Options one_at_a_time() {
  TestServer::Options options;
  options.pool.sequences_max = 1;
  return options;
}

std::string pair(const std::optional<Event>& event) {
  return event ? event->name + " " + without_ids(event->data) : "end";
}

TEST(Message, AStreamHasExactlyTheEventsAndShapesOfTheApi) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream("say hello; delay 20; say there"));
  const Answer head = probe.head();
  EXPECT_EQ(head.status, 200U);
  EXPECT_EQ(head.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(head.header("cache-control"), "no-cache");
  EXPECT_EQ(head.header("transfer-encoding"), "chunked");
  EXPECT_EQ(pair(probe.event()),
            R"(message_start {"type":"message_start","message":{"id":"msg_*","type":"message",)"
            R"("role":"assistant","model":"scripted","content":[],"stop_reason":null,)"
            R"("stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":0,)"
            R"("cache_read_input_tokens":0,"output_tokens":1}}})");
  EXPECT_EQ(pair(probe.event()), R"(ping {"type":"ping"})");
  EXPECT_EQ(pair(probe.event()),
            R"(content_block_start {"type":"content_block_start","index":0,"content_block":)"
            R"({"type":"text","text":""}})");
  EXPECT_EQ(pair(probe.event()),
            R"(content_block_delta {"type":"content_block_delta","index":0,"delta":)"
            R"({"type":"text_delta","text":"hello"}})");
  EXPECT_EQ(pair(probe.event()),
            R"(content_block_delta {"type":"content_block_delta","index":0,"delta":)"
            R"({"type":"text_delta","text":" there"}})");
  EXPECT_EQ(pair(probe.event()), R"(content_block_stop {"type":"content_block_stop","index":0})");
  EXPECT_EQ(pair(probe.event()),
            R"(message_delta {"type":"message_delta","delta":{"stop_reason":"end_turn",)"
            R"("stop_sequence":null},"usage":{"input_tokens":10,"cache_creation_input_tokens":0,)"
            R"("cache_read_input_tokens":0,"output_tokens":2,)"
            R"("output_tokens_details":{"thinking_tokens":0}}})");
  EXPECT_EQ(pair(probe.event()), R"(message_stop {"type":"message_stop"})");
  EXPECT_EQ(pair(probe.event()), "end");
}

TEST(Message, WithMaxTokens0ThePromptIsReadAndNothingIsSaid) {
  TestServer server;
  const std::string body = R"({"model":"scripted","max_tokens":0,)"
                           R"("messages":[{"role":"user","content":"script: say x"}]})";
  const Answer answer = server.answer(post("/v1/messages", body));
  EXPECT_EQ(answer.status, 200U) << answer.body;
  EXPECT_NE(answer.body.find(R"("content":[],"stop_reason":"max_tokens")"), std::string::npos)
      << answer.body;
  EXPECT_NE(answer.body.find(R"("output_tokens":0)"), std::string::npos);
}

TEST(Message, HalfACharacterInABodyIsReplaced) {
  TestServer server;
  const Answer answer = server.answer(ask(R"(say a\ud83d)"));
  EXPECT_EQ(answer.status, 200U) << answer.body;
  EXPECT_NE(answer.body.find("a\xEF\xBF\xBD"), std::string::npos) << answer.body;
}

TEST(Message, AnAnswerThatIsNotStreamedIsOneMessage) {
  TestServer server;
  const Answer answer = server.answer(ask("say hello there"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_EQ(without_ids(answer.body),
            R"({"id":"msg_*","type":"message","role":"assistant","model":"scripted","content":)"
            R"([{"type":"text","text":"hello there"}],"stop_reason":"end_turn",)"
            R"("stop_sequence":null,"usage":{"input_tokens":7,"cache_creation_input_tokens":0,)"
            R"("cache_read_input_tokens":0,"output_tokens":2,)"
            R"("output_tokens_details":{"thinking_tokens":0}}})");
}

TEST(Message, AnAnswerWithoutATextIsComplete) {
  TestServer server;
  EXPECT_NE(server.answer(ask("")).body.find(R"("content":[],"stop_reason":"end_turn")"),
            std::string::npos);
  HttpProbe probe = server.connect();
  probe.send(ask_stream(""));
  probe.head();
  EXPECT_EQ(probe.event_names(), "message_start ping message_delta message_stop");
}

TEST(Message, MessageIdsAreUnique) {
  TestServer server;
  EXPECT_NE(server.answer(ask("say hello")).body, server.answer(ask("say hello")).body);
}

TEST(Message, TheConnectionGoesOnAfterAStream) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream("say one") + ask("say two") + ask_stream("say three"));
  probe.head();
  EXPECT_TRUE(probe.event_names().ends_with("message_stop"));
  EXPECT_NE(probe.answer().body.find("two"), std::string::npos);
  probe.head();
  EXPECT_TRUE(probe.event_names().ends_with("message_stop"));
  EXPECT_EQ(server.connections().size(), 1U);
}

TEST(Message, MessageStartAndAPingArriveBeforeThePromptIsProcessed) {
  TestServer server(slow_prefill());
  HttpProbe probe = server.connect();
  probe.send(ask_stream(long_prompt(2000)));
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_EQ(probe.event()->name, "message_start");
  EXPECT_EQ(probe.event()->name, "ping");
  EXPECT_TRUE(probe.is_silent());
}

TEST(Message, APingComesEveryTenSeconds) {
  TestServer server(slow_prefill());
  HttpProbe probe = server.connect();
  probe.send(ask_stream(long_prompt(2000)));
  probe.head();
  probe.event();
  probe.event();
  for (int i = 0; i < 5; ++i) {
    server.let_pass(milliseconds(9999));
    EXPECT_TRUE(probe.is_silent());
    server.let_pass(milliseconds(1));
    EXPECT_EQ(pair(probe.event()), R"(ping {"type":"ping"})");
  }
}

TEST(Message, AfterFourMinutesEmptyDeltasTakeThePlaceOfPings) {
  TestServer server(slow_prefill());
  HttpProbe probe = server.connect();
  probe.send(ask_stream(long_prompt(2000)));
  probe.head();
  probe.event();
  probe.event();
  for (int i = 0; i < 24; ++i) {
    server.let_pass(seconds(10));
    EXPECT_EQ(probe.event()->name, "ping");
  }
  server.let_pass(seconds(10));
  EXPECT_EQ(probe.event()->name, "content_block_start");
  const std::string empty =
      R"(content_block_delta {"type":"content_block_delta","index":0,"delta":)"
      R"({"type":"text_delta","text":""}})";
  EXPECT_EQ(pair(probe.event()), empty);
  for (int i = 0; i < 3; ++i) {
    server.let_pass(seconds(10));
    EXPECT_EQ(pair(probe.event()), empty);
  }
}

TEST(Message, TextGoesIntoTheBlockThatEmptyDeltasOpened) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream("slow 300; say hello"));
  probe.head();
  probe.event();
  probe.event();
  server.let_pass(seconds(241));
  EXPECT_EQ(probe.event_names(),
            "content_block_start content_block_delta content_block_delta content_block_stop "
            "message_delta message_stop");
}

TEST(Message, WhereThoughtsWereAskedForTheyGoOnInTheBlockThatEmptyDeltasOpened) {
  TestServer server;
  const std::string thinking = R"("thinking":{"type":"adaptive"})";
  for (const char* script : {"slow 300; think hm; say hello", "slow 300; say hello"}) {
    HttpProbe probe = server.connect();
    probe.send(ask_stream(script, thinking));
    probe.head();
    probe.event();
    probe.event();
    server.let_pass(seconds(241));
    std::string blocks;
    while (const auto event = probe.event()) {
      const bool is_delta = event->name == "content_block_delta";
      if (event->name.starts_with("content") && !is_delta) blocks += event->data + "\n";
    }
    EXPECT_EQ(blocks,
              "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
              "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n"
              "{\"type\":\"content_block_stop\",\"index\":0}\n"
              "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
              "{\"type\":\"text\",\"text\":\"\"}}\n"
              "{\"type\":\"content_block_stop\",\"index\":1}\n")
        << script;
  }
}

TEST(Message, EachWayToStopHasItsReason) {
  TestServer::Options options;
  options.pool.context_tokens = 32;
  TestServer server(std::move(options));
  const auto stop = [&](std::string_view script, std::string_view members) {
    const std::string body = server.answer(ask(script, members)).body;
    const std::size_t from = body.find(R"("content")");
    return from == std::string::npos ? body : body.substr(from, body.find(R"(,"usage")") - from);
  };
  EXPECT_EQ(stop("say a b", ""), R"("content":[{"type":"text","text":"a b"}],)"
                                 R"("stop_reason":"end_turn","stop_sequence":null)");
  EXPECT_EQ(stop("say a b c STOP d", R"("stop_sequences":["x","STOP"])"),
            R"("content":[{"type":"text","text":"a b c "}],)"
            R"("stop_reason":"stop_sequence","stop_sequence":"STOP")");
  EXPECT_EQ(stop("endless a", R"("max_tokens":3)"),
            R"("content":[{"type":"text","text":"a a a"}],)"
            R"("stop_reason":"max_tokens","stop_sequence":null)");
  EXPECT_TRUE(
      stop("endless a", "")
          .ends_with(R"("stop_reason":"model_context_window_exceeded","stop_sequence":null)"));
}

TEST(Message, AStreamTellsItsStopSequence) {
  TestServer server;
  const Answer answer = server.answer(ask_stream("say a STOP b", R"("stop_sequences":["STOP"])"));
  EXPECT_NE(answer.body.find(R"("stop_reason":"stop_sequence","stop_sequence":"STOP")"),
            std::string::npos)
      << answer.body;
}

TEST(Message, APromptThatIsTooLongIsRefusedBeforeAStreamBegins) {
  TestServer::Options options;
  options.pool.context_tokens = 16;
  TestServer server(std::move(options));
  const Answer answer = server.answer(ask_stream(long_prompt(100)));
  EXPECT_EQ(answer.status, 400U);
  EXPECT_NE(answer.body.find(R"("type":"invalid_request_error","message":"prompt is too long: )"
                             R"(107 tokens > 15 maximum")"),
            std::string::npos)
      << answer.body;
}

TEST(Message, WhatWasProcessedBeforeIsReadFromTheCache) {
  TestServer server;
  server.answer(ask("say hello"));
  EXPECT_NE(
      server.answer(ask("say hello"))
          .body.find(
              R"("input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":5)"),
      std::string::npos);
}

TEST(Message, ABodyThatIsNoRequestIsTheClientsFault) {
  TestServer server;
  for (const std::string_view body : {"", "{", "[]", "{}", R"({"model":"scripted"})"}) {
    const Answer answer = server.answer(post("/v1/messages", body));
    EXPECT_EQ(answer.status, 400U) << body;
    EXPECT_NE(answer.body.find("invalid_request_error"), std::string::npos);
  }
}

TEST(Message, MoreThanRunAndWaitAreTurnedAwayWith529) {
  TestServer::Options options = one_at_a_time();
  options.service.waiting_max = 1;
  TestServer server(std::move(options));
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 5; endless word"));
  running.head();
  HttpProbe waiting = server.connect();
  waiting.send(ask_stream("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 2; }));
  const Answer refused = server.answer(ask("say hello"));
  EXPECT_EQ(refused.status, 529U);
  EXPECT_EQ(refused.header("retry-after"), "5");
  EXPECT_NE(refused.body.find(R"("type":"overloaded_error")"), std::string::npos);
  running.hang_up();
  waiting.head();
  EXPECT_TRUE(waiting.event_names().ends_with("message_stop"));
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(Message, AClientThatHangsUpWhileItsPromptIsProcessedFreesItsSequence) {
  TestServer::Options options = one_at_a_time();
  options.model_lines = "prefill_us_per_token 1000";  // 2000 tokens: 2 s, in steps of 256 ms.
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send(ask_stream(long_prompt(2000)));
  probe.head();
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  probe.hang_up();
  EXPECT_TRUE(server.wait_until([&] { return server.running() == 0; }));
  EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_LT(server.pool().status().heartbeat.cached_tokens, 2000U) << "it went on to the end";
}

TEST(Message, AClientThatHangsUpInItsAnswerFreesItsSequence) {
  TestServer server(one_at_a_time());
  for (const std::string& request :
       {ask_stream("delay 2; endless word"), ask("delay 2; endless word")}) {
    HttpProbe probe = server.connect();
    probe.send(request);
    ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
    probe.hang_up();
    EXPECT_TRUE(server.wait_until([&] { return server.running() == 0; }));
    EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  }
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(Message, AClientThatHangsUpWhileItWaitsIsForgotten) {
  TestServer server(one_at_a_time());
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 2; endless word"));
  running.head();
  HttpProbe waiting = server.connect();
  waiting.send(ask_stream("say hello"));
  const auto waits = [&](std::uint32_t count) {
    return server.wait_until([&] { return server.pool().status().heartbeat.waiting == count; });
  };
  ASSERT_TRUE(waits(1));
  waiting.hang_up();
  EXPECT_TRUE(waits(0));
}

TEST(Message, AClientThatHangsUpWhileTheModelLoadsIsForgotten) {
  TestServer::Options options;
  options.model_lines = "load_ms 200";
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send(ask("endless word"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  probe.hang_up();
  EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_EQ(server.running(), 0U);
}

TestServer::Options slow_load(int ms) {
  TestServer::Options options;
  options.model_lines = "load_ms " + std::to_string(ms);
  return options;
}

/// Passes time in the steps in which clients are thought of.
void let_pass_by_tens(TestServer& server, int tens) {
  for (int i = 0; i < tens; ++i) {
    server.let_pass(seconds(10));
    server.wait_until([turns = 0]() mutable { return ++turns > 50; });
  }
}

TEST(Message, AStreamThatWaitsForALoadBeginsAfterTwentySeconds) {
  TestServer server(slow_load(400));
  HttpProbe probe = server.connect();
  probe.send(ask_stream("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  server.let_pass(milliseconds(19'999));
  EXPECT_TRUE(probe.is_silent());
  let_pass_by_tens(server, 1);
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_NE(pair(probe.event()).find(R"("usage":{"input_tokens":0,)"), std::string::npos);
  EXPECT_EQ(probe.event()->name, "ping");
  server.let_pass(seconds(10));
  EXPECT_EQ(probe.event()->name, "ping");
  EXPECT_EQ(probe.event()->name, "content_block_start");
  EXPECT_EQ(probe.event()->name, "content_block_delta");
  EXPECT_EQ(probe.event()->name, "content_block_stop");
  // What the early start could not know.
  EXPECT_NE(pair(probe.event()).find(R"("usage":{"input_tokens":6,)"), std::string::npos);
  EXPECT_EQ(probe.event_names(), "message_stop");
}

TEST(Message, AStreamThatBeganTooEarlyForAStatusEndsWithAnErrorEvent) {
  TestServer server(slow_load(60'000));
  HttpProbe probe = server.connect();
  probe.send(ask_stream("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  let_pass_by_tens(server, 2);
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_EQ(probe.event()->name, "message_start");
  EXPECT_EQ(probe.event()->name, "ping");
  EXPECT_TRUE(server.pool().stop_load("level Critical"));
  const std::string last = pair(probe.event());
  EXPECT_TRUE(last.starts_with(R"(error {"type":"error","error":{"type":"overloaded_error")"))
      << last;
  EXPECT_EQ(pair(probe.event()), "end");
}

TEST(Message, AWholeAnswerBeginsWithSpacesWhereItTakesMinutes) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask("slow 1500; say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  let_pass_by_tens(server, 23);
  EXPECT_TRUE(probe.is_silent());
  let_pass_by_tens(server, 2);
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_TRUE(answer.body.starts_with("  {\"id\":\"msg_")) << answer.body;
  EXPECT_NE(answer.body.find(R"("text":"hello")"), std::string::npos);
  probe.send(ask("say more"));
  EXPECT_EQ(probe.answer().status, 200U) << "the connection does not go on";
}

TEST(Message, AWholeAnswerThatBeganAndFailsIsCutOffBehindTheError) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask("slow 1500; fail"));
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  let_pass_by_tens(server, 24);
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_EQ(probe.piece(), " ");
  EXPECT_NE(probe.piece().find(R"({"type":"error","error":{"type":"api_error")"),
            std::string::npos);
  EXPECT_TRUE(probe.closed_by_server()) << "no chunk may say that this was all";
}

TEST(Message, AnOldClientThatCannotSeeACutWaitsForItsWholeAnswer) {
  TestServer server;
  HttpProbe probe = server.connect();
  std::string request = ask("slow 1500; say hello");
  request.replace(request.find("HTTP/1.1"), 8, "HTTP/1.0");
  probe.send(request);
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  let_pass_by_tens(server, 26);
  const Answer answer = probe.answer();
  EXPECT_TRUE(answer.body.starts_with("{\"id\"")) << answer.body;
}

TEST(Message, ManyStreamsRunAtOnceAndEachGetsItsOwnAnswer) {
  TestServer server;
  std::vector<HttpProbe> probes;
  for (int i = 0; i < 16; ++i) {
    probes.push_back(server.connect());
    probes.back().send(ask("delay 1; repeat 20 word" + std::to_string(i)));
  }
  for (int i = 0; i < 16; ++i) {
    const std::string body = probes[static_cast<std::size_t>(i)].answer().body;
    const std::string word = "word" + std::to_string(i);
    EXPECT_NE(body.find(R"("text":")" + word + " " + word + " "), std::string::npos) << body;
    EXPECT_NE(body.find(R"("output_tokens":20)"), std::string::npos) << body;
  }
}

TEST(Message, RequestsUnderWayEndWithTheServer) {
  TestServer server(one_at_a_time());
  std::vector<HttpProbe> probes;
  for (int i = 0; i < 4; ++i) {
    probes.push_back(server.connect());
    probes.back().send(i % 2 == 0 ? ask_stream("delay 2; endless word")
                                  : ask("delay 2; endless word"));
  }
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  // The server's destructor ends them all, and sees that nothing is left.
}

TEST(Message, RequestsThatWaitForTheModelEndWithTheServer) {
  TestServer::Options options;
  options.model_lines = "load_ms 60000";
  TestServer server(std::move(options));
  HttpProbe first = server.connect();
  HttpProbe second = server.connect();
  first.send(ask_stream("say hello"));
  second.send(ask("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 2; }));
}

}  // namespace
}  // namespace pensieve::gateway
