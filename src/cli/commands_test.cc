// Each client command against a server that says what the test wrote down.
#include "cli/commands.h"

#include <csignal>
#include <cstdio>
#include <string>

#include <unistd.h>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "cli/testing/captured_console.h"
#include "cli/testing/fake_server.h"
#include "config/load.h"

namespace pensieve::cli {
namespace {

std::string delta(const std::string& text) {
  return "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
         "\"delta\":{\"type\":\"text_delta\",\"text\":\"" +
         text + "\"}}\n\n";
}

const std::string kEnd =
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
    "\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

class CommandsTest : public testing::Test {
 protected:
  ExitCode ask(const Endpoint& endpoint, const RunOptions& options) {
    return run_prompt(endpoint, options, clock_, captured_.console());
  }
  /// An address at which nobody listens: a server that has answered all that it had to.
  static Endpoint closed_endpoint() {
    FakeServer server({});
    return server.endpoint();
  }

  FakeClock clock_;
  CapturedConsole captured_;
};

TEST_F(CommandsTest, RunPrintsTheTextAsItComesAndFiguresOnTheErrorStream) {
  const std::string first = delta("Hel");
  FakeServer server(
      {sse_answer({first.substr(0, 30), first.substr(30),
                   "event: ping\ndata: {\"type\":\"ping\"}\n\n", delta("lo \xc3\xa9"), kEnd})});
  const RunOptions options{
      .prompt = "Say \"hi\"", .model = "m", .system = "S", .max_tokens = 9, .temperature = 0.5};
  EXPECT_EQ(ask(server.endpoint(), options), ExitCode::kOk) << captured_.err;
  EXPECT_EQ(captured_.out, "Hello \xc3\xa9\n");
  EXPECT_EQ(captured_.err, "3 tokens, first after 0.00 s\n");
  EXPECT_EQ(server.requests().at(0),
            "POST /v1/messages\nx-api-key: the-key\n"
            "{\"model\":\"m\",\"max_tokens\":9,\"stream\":true,\"system\":\"S\","
            "\"temperature\":5E-1,\"messages\":[{\"role\":\"user\","
            "\"content\":\"Say \\\"hi\\\"\"}]}");
}

TEST_F(CommandsTest, RunShowsTokensPerSecondAfterTheFirst) {
  FakeServer server({sse_answer({delta("a"), delta("b"), kEnd})});
  Console console = captured_.console();
  console.out = [this](std::string_view) { clock_.advance(std::chrono::milliseconds(500)); };
  EXPECT_EQ(run_prompt(server.endpoint(), {.prompt = "x", .model = "m"}, clock_, console),
            ExitCode::kOk);
  EXPECT_EQ(captured_.err, "3 tokens, 4.0 tokens/s, first after 0.00 s\n");
}

TEST_F(CommandsTest, RunWithoutAModelAsksTheServerForOne) {
  FakeServer server({json_answer(200, R"({"data":[{"id":"tiny"}]})"), sse_answer({kEnd})});
  EXPECT_EQ(ask(server.endpoint(), {.prompt = "x"}), ExitCode::kOk) << captured_.err;
  EXPECT_NE(server.requests().at(1).find("\"model\":\"tiny\""), std::string::npos);
}

TEST_F(CommandsTest, RunTellsAMemoryRefusalFromOneForGood) {
  const std::string body = R"({"type":"error","error":{"type":"overloaded_error","message":)"
                           R"("Server is under critical memory pressure: 0.75GB available"}})";
  FakeServer server({json_answer(503, body),
                     json_answer(503, R"({"error":{"type":"api_error","message":"too big"}})"),
                     json_answer(404, R"({"error":{"type":"not_found_error","message":"gone"}})")});
  const RunOptions options{.prompt = "x", .model = "m"};
  EXPECT_EQ(ask(server.endpoint(), options), ExitCode::kRefusedForMemory);
  EXPECT_EQ(captured_.err.find("pensieve: Server is under critical memory pressure: 0.75GB "
                               "available\n"),
            0u);
  EXPECT_NE(captured_.err.find("pensieve clear-cache"), std::string::npos);
  EXPECT_EQ(ask(server.endpoint(), options), ExitCode::kDoesNotFit);
  EXPECT_EQ(ask(server.endpoint(), options), ExitCode::kModelUnavailable);
  EXPECT_EQ(captured_.out, "");
}

TEST_F(CommandsTest, RunReportsAnErrorInsideTheStream) {
  FakeServer server(
      {sse_answer({delta("par"),
                   "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\","
                   "\"message\":\"the worker crashed\"}}\n\n"})});
  EXPECT_EQ(ask(server.endpoint(), {.prompt = "x", .model = "m"}), ExitCode::kFailure);
  EXPECT_EQ(captured_.out, "par\n");
  EXPECT_EQ(captured_.err, "pensieve: the worker crashed\n");
}

TEST_F(CommandsTest, RunNeverTakesABrokenStreamForAnAnswer) {
  FakeServer::Answer cut = sse_answer({delta("par")});
  cut.pop_back();
  FakeServer server({cut, sse_answer({delta("par")})});
  EXPECT_EQ(ask(server.endpoint(), {.prompt = "x", .model = "m"}), ExitCode::kFailure);
  EXPECT_NE(captured_.err.find("broke in the middle"), std::string::npos) << captured_.err;
  captured_.err.clear();
  EXPECT_EQ(ask(server.endpoint(), {.prompt = "x", .model = "m"}), ExitCode::kFailure);
  EXPECT_NE(captured_.err.find("the answer broke off before its end"), std::string::npos);
}

TEST_F(CommandsTest, CtrlCClosesTheConnectionAndEndsTheRun) {
  FakeServer::Answer endless = sse_answer({delta("par\\n")});
  endless.back() = FakeServer::kHold;
  FakeServer server({endless});
  Console console = captured_.console();
  console.out = [](std::string_view) { std::raise(SIGINT); };
  EXPECT_EQ(run_prompt(server.endpoint(), {.prompt = "x", .model = "m"}, clock_, console),
            ExitCode::kInterrupted);
  EXPECT_EQ(captured_.err, "? tokens, first after 0.00 s, interrupted\n");
  EXPECT_EQ(server.requests().at(1), "closed by the client");
}

TEST_F(CommandsTest, ARefusedConnectionSaysHowToStartAServer) {
  EXPECT_EQ(ask(closed_endpoint(), {.prompt = "x", .model = "m"}), ExitCode::kUnreachable);
  EXPECT_NE(captured_.err.find("pensieve serve"), std::string::npos);
  EXPECT_EQ(show_health(closed_endpoint(), false, captured_.console()), ExitCode::kUnreachable);
}

TEST_F(CommandsTest, HealthShowsLevelAndWhetherRequestsAreAccepted) {
  const std::string good = R"({"status":"healthy","service":"pensieve-anthropic-proxy",)"
                           R"("memory":{"status":"Safe","available_gb":"12.45",)"
                           R"("accepting_requests":true}})";
  const std::string bad = R"({"memory":{"status":"Critical","available_gb":"0.75",)"
                          R"("accepting_requests":false}})";
  FakeServer server({json_answer(200, good), json_answer(503, bad), json_answer(200, good),
                     json_answer(200, "{}"), json_answer(200, "<html>")});
  EXPECT_EQ(show_health(server.endpoint(), false, captured_.console()), ExitCode::kOk);
  EXPECT_EQ(captured_.out, "memory: Safe, 12.45 GB available\naccepting requests: yes\n");
  EXPECT_EQ(show_health(server.endpoint(), false, captured_.console()),
            ExitCode::kRefusedForMemory);
  captured_.out.clear();
  EXPECT_EQ(show_health(server.endpoint(), true, captured_.console()), ExitCode::kOk);
  EXPECT_EQ(captured_.out, good + "\n");
  EXPECT_EQ(show_health(server.endpoint(), false, captured_.console()), ExitCode::kFailure);
  EXPECT_EQ(show_health(server.endpoint(), false, captured_.console()), ExitCode::kFailure);
}

TEST_F(CommandsTest, PsShowsAnAlignedTable) {
  FakeServer server(
      {json_answer(200, R"({"models":[{"id":"tiny","engine":"llama","state":"ready","pid":42,)"
                        R"("context_tokens":8192,"parallel":4,"requests_running":1,)"
                        R"("requests_waiting":0,"memory_reserved_bytes":1073741824,)"
                        R"("memory_resident_bytes":1048576,"kv_tokens_cached":17,)"
                        R"("uptime_seconds":61}]})"),
       json_answer(200, R"({"models":[]})")});
  EXPECT_EQ(show_models(server.endpoint(), false, captured_.console()), ExitCode::kOk);
  EXPECT_EQ(captured_.out,
            "MODEL  ENGINE  STATE  PID  CONTEXT  RUNNING  WAITING  KV TOKENS  RESERVED  RESIDENT"
            "     UP\n"
            "tiny   llama   ready   42     8192      1/4        0         17   1.00 GB    1.0 MB"
            "  1 min\n");
  captured_.out.clear();
  EXPECT_EQ(show_models(server.endpoint(), false, captured_.console()), ExitCode::kOk);
  EXPECT_EQ(captured_.out, "no model is loaded\n");
}

TEST_F(CommandsTest, AFigureThatIsMissingIsAQuestionMarkNotZero) {
  FakeServer server({json_answer(200, R"({"freed_bytes":1048576,"dropped_tokens":-1})")});
  EXPECT_EQ(clear_cache(server.endpoint(), false, captured_.console()), ExitCode::kOk);
  EXPECT_EQ(captured_.out,
            "1.0 MB came back, ? cached tokens dropped\navailable: ? before, ? after\n");
}

TEST_F(CommandsTest, ClearCacheRemovesFilesOnlyWhereThatIsAskedFor) {
  FakeServer server({json_answer(200, R"({"freed_bytes":0,"removed_bytes":1048576})")});
  EXPECT_EQ(clear_cache(server.endpoint(), true, captured_.console()), ExitCode::kOk);
  EXPECT_NE(captured_.out.find("1.0 MB are being removed from the disk\n"), std::string::npos)
      << captured_.out;
}

TEST_F(CommandsTest, StopWaitsUntilThePortIsClosed) {
  // The second answer is for a connection that finds the port still open.
  FakeServer server({json_answer(202, "{}"), json_answer(200, "{}")});
  EXPECT_EQ(stop_server(server.endpoint(), std::chrono::seconds(30), captured_.console()),
            ExitCode::kOk)
      << captured_.err;
  EXPECT_EQ(captured_.out, "stopped: " + server.endpoint().url() + " is closed\n");
}

TEST_F(CommandsTest, StopSaysWhenThePortStaysOpen) {
  FakeServer server({json_answer(202, "{}"), json_answer(200, "{}")});
  EXPECT_EQ(stop_server(server.endpoint(), Duration::zero(), captured_.console()),
            ExitCode::kFailure);
  EXPECT_NE(captured_.err.find("still open after 0 s"), std::string::npos) << captured_.err;
}

TEST_F(CommandsTest, AWrongKeyIsSaidToBeOne) {
  FakeServer server({json_answer(
      401, R"({"error":{"type":"authentication_error","message":"invalid x-api-key"}})")});
  EXPECT_EQ(clear_cache(server.endpoint(), false, captured_.console()), ExitCode::kUsage);
  EXPECT_NE(captured_.err.find("[server] api_key or keys"), std::string::npos);
}

TEST_F(CommandsTest, AServerOnEveryAddressIsAskedThroughLoopback) {
  config::Settings settings;
  settings.host = "0.0.0.0";
  EXPECT_EQ(endpoint_of(settings).url(), "http://127.0.0.1:7777");
  settings.host = "::";
  EXPECT_EQ(endpoint_of(settings).url(), "http://[::1]:7777");
}

TEST_F(CommandsTest, ANamedKeyWillDoWhereThereIsNoOther) {
  config::Settings settings;
  settings.server.keys = {"ci open-1 requests=1", "alice open-2"};
  EXPECT_EQ(endpoint_of(settings).api_key, "open-2");
  settings.server.api_key = "sesame";
  EXPECT_EQ(endpoint_of(settings).api_key, "sesame");
}

TEST_F(CommandsTest, ConfigPrintsTomlThatLoadsAgain) {
  config::Sources sources;
  sources.environment["PENSIEVE_PORT"] = "8123";
  const auto loaded = config::load(sources);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(show_settings(*loaded, false, captured_.console()), ExitCode::kOk);
  EXPECT_NE(captured_.out.find("port = 8123"), std::string::npos);
  EXPECT_NE(captured_.out.find("# from PENSIEVE_PORT\n"), std::string::npos);
  const std::string path = testing::TempDir() + "pensieve-config-" + std::to_string(getpid());
  std::FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs(captured_.out.c_str(), file);
  std::fclose(file);
  config::Sources again;
  again.flags.push_back({"--config", path});
  const auto reloaded = config::load(again);
  ASSERT_TRUE(reloaded) << reloaded.error().message;
  EXPECT_EQ(reloaded->settings.port, 8123);
  std::remove(path.c_str());
}

TEST_F(CommandsTest, ConfigPrintsJson) {
  const auto loaded = config::load({});
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(show_settings(*loaded, true, captured_.console()), ExitCode::kOk);
  EXPECT_NE(captured_.out.find(R"({"key":"memory.critical_gb","value":"1","origin":"default"})"),
            std::string::npos);
}

}  // namespace
}  // namespace pensieve::cli
