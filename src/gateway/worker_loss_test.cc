// The worker dies under a request, in each way and at each moment: one end per request, whatever
// happens, and the next request works.
#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::seconds;
using worker::WorkerEnd;

std::uint64_t ends(TestServer& server, WorkerEnd end) {
  const auto all = server.pool().status().ends;
  const auto found = all.find(end);
  return found == all.end() ? 0 : found->second;
}

std::string text(const Answer& answer) {
  const std::size_t from = answer.body.find(R"("content":)");
  return from == std::string::npos ? answer.body
                                   : answer.body.substr(from, answer.body.find("]") + 1 - from);
}

constexpr std::string_view kHello = R"("content":[{"type":"text","text":"hello"}])";
constexpr std::string_view kWholeStream =
    "message_start ping content_block_start content_block_delta content_block_stop "
    "message_delta message_stop";

TEST(WorkerLoss, AWorkerThatCrashesBeforeTheFirstTokenIsReplacedUnseen) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream(server.once("abort") + "; say hello"));
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_EQ(probe.event_names(), kWholeStream);
  EXPECT_EQ(ends(server, WorkerEnd::kCrashed), 1U);
}

TEST(WorkerLoss, AWorkerThatIsKilledBeforeTheFirstTokenIsReplacedUnseen) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream(server.once("slow 60000") + "; say hello"));
  probe.head();
  EXPECT_EQ(probe.event()->name, "message_start");
  EXPECT_EQ(probe.event()->name, "ping");
  ASSERT_TRUE(server.wait_until([&] { return server.once_happened(); }));
  server.kill_worker();
  EXPECT_EQ(probe.event_names(),
            "content_block_start content_block_delta content_block_stop "
            "message_delta message_stop");
  EXPECT_EQ(ends(server, WorkerEnd::kKilled), 1U);
}

TEST(WorkerLoss, AnAnswerThatIsNotStreamedIsBegunAnewAlsoAfterItsFirstToken) {
  TestServer server;
  const Answer answer = server.answer(ask("say hello; " + server.once("abort")));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(text(answer), kHello);
}

TEST(WorkerLoss, AWorkerThatHangsIsReplacedUnseen) {
  TestServer::Options options;
  options.pool.hang_after = seconds(60);
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send(ask(server.once("hang") + "; say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.once_happened(); }));
  // Its last sign of life may come after a jump of the clock; not after two.
  EXPECT_TRUE(server.wait_until([&] {
    if (probe.is_silent() && ends(server, WorkerEnd::kDeadline) == 0) server.let_pass(seconds(61));
    return ends(server, WorkerEnd::kDeadline) > 0;
  }));
  EXPECT_EQ(text(probe.answer()), kHello);
}

TEST(WorkerLoss, AWorkerThatIsKilledInAStreamEndsItWithExactlyOneError) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask_stream("say hello; slow 60000"));
  const Answer head = probe.head();
  for (const std::string_view name :
       {"message_start", "ping", "content_block_start", "content_block_delta"}) {
    EXPECT_EQ(probe.event()->name, name);
  }
  server.kill_worker();
  const std::optional<Event> event = probe.event();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->name, "error");
  EXPECT_EQ(event->data,
            fmt::format(R"~({{"type":"error","error":{{"type":"api_error","message":"the model's )~"
                        R"~(worker ended: killed (signal 9, Killed)"}},"request_id":"{}"}})~",
                        head.header("request-id")));
  EXPECT_FALSE(probe.event()) << "something after the error";
  // The body has ended properly, so the connection goes on, with a new worker.
  probe.send(ask("say hello"));
  EXPECT_EQ(text(probe.answer()), kHello);
  EXPECT_EQ(ends(server, WorkerEnd::kKilled), 1U);
  EXPECT_TRUE(server.wait_until([&] { return server.running() == 0; }));
}

TEST(WorkerLoss, AWorkerThatCrashesTwiceIsOneErrorAndNotTriedAThirdTime) {
  TestServer server;
  const Answer answer = server.answer(ask("abort"));
  EXPECT_EQ(answer.status, 500U);
  EXPECT_NE(answer.body.find(R"("type":"api_error","message":"the model's worker ended: crashed)"),
            std::string::npos)
      << answer.body;
  EXPECT_EQ(ends(server, WorkerEnd::kCrashed), 2U);
  HttpProbe probe = server.connect();
  probe.send(ask_stream("abort"));
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_EQ(probe.event_names(), "message_start ping error");
  EXPECT_EQ(ends(server, WorkerEnd::kCrashed), 4U);
  EXPECT_EQ(text(server.answer(ask("say hello"))), kHello);
}

TEST(WorkerLoss, AWorkerThatRunsOutOfMemoryIsOverloadThatMayPass) {
  TestServer server;
  const Answer answer = server.answer(ask("badalloc"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("retry-after"), "5");
  EXPECT_NE(answer.body.find(R"("type":"overloaded_error","message":"the model ran out of memory)"),
            std::string::npos)
      << answer.body;
  EXPECT_EQ(ends(server, WorkerEnd::kOutOfMemory), 2U);
  EXPECT_EQ(text(server.answer(ask("say hello"))), kHello);
}

TEST(WorkerLoss, EachOfTheRequestsOfADeadWorkerGetsItsOneEnd) {
  TestServer server;
  HttpProbe begun = server.connect();
  HttpProbe whole = server.connect();
  HttpProbe fresh = server.connect();
  begun.send(ask_stream("delay 5; endless word"));
  begun.head();
  while (begun.event()->name != "content_block_delta") {
  }
  whole.send(ask("delay 20; repeat 10 word"));
  fresh.send(ask_stream(server.once("slow 60000") + "; say hello"));
  fresh.head();
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 3 && server.once_happened(); }));
  server.kill_worker();
  EXPECT_TRUE(begun.event_names().ends_with(" error"));
  EXPECT_NE(whole.answer().body.find(R"("output_tokens":10)"), std::string::npos);
  EXPECT_EQ(fresh.event_names(), kWholeStream);
  EXPECT_EQ(ends(server, WorkerEnd::kKilled), 1U);
}

TEST(WorkerLoss, AnIdleWorkerThatIsKilledIsReplacedByTheNextRequest) {
  TestServer server;
  EXPECT_EQ(text(server.answer(ask("say hello"))), kHello);
  server.kill_worker();
  EXPECT_EQ(text(server.answer(ask("say hello"))), kHello);
  server.kill_worker();
  EXPECT_EQ(server
                .answer(post("/v1/messages/count_tokens",
                             R"({"model":"scripted","messages":[{"role":"user",)"
                             R"("content":"x"}]})"))
                .status,
            200U);
  EXPECT_EQ(ends(server, WorkerEnd::kKilled), 2U);
}

TEST(WorkerLoss, AClientThatHangsUpWhileItsWorkerIsReplacedIsForgotten) {
  TestServer::Options options;
  options.model_lines = "load_ms 300";
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send(ask_stream("slow 60000; say hello"));
  probe.head();
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  server.kill_worker();
  ASSERT_TRUE(
      server.wait_until([&] { return server.pool().status().state == model::State::kLoading; }));
  probe.hang_up();
  EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_EQ(server.running(), 0U);
}

}  // namespace
}  // namespace pensieve::gateway
