// Routes besides /v1/messages, and what comes before all of them. See guard_test.cc for memory.
#include "gateway/service.h"

#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

std::string count(std::string_view content, std::string_view model = "scripted") {
  return post("/v1/messages/count_tokens?beta=true",
              fmt::format(R"({{"model":"{}","messages":[{{"role":"user","content":"{}"}}]}})",
                          model, content));
}

std::string error(std::string_view type, std::string_view message) {
  return fmt::format(
      R"({{"type":"error","error":{{"type":"{}","message":"{}"}},"request_id":"req_*"}})", type,
      message);
}

TEST(Service, AnUnknownRouteIsNotFound) {
  TestServer server;
  const Answer answer = server.answer(post("/v1/complete", "{}"));
  EXPECT_EQ(answer.status, 404U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_EQ(without_ids(answer.body), error("not_found_error", "no route /v1/complete"));
}

TEST(Service, TheNameThatTheUserTypedIsAsGoodAsTheModelsOwn) {
  TestServer::Options options;
  options.service.model_aliases = {"short"};
  TestServer server(std::move(options));
  EXPECT_EQ(server.answer(count("x", "short")).status, 200U);
  EXPECT_EQ(server.answer(get("/v1/models/short")).status, 200U);
  EXPECT_EQ(server.answer(count("x", "shor")).status, 404U);
}

TEST(Service, AKnownRouteWithAnotherMethodIsNotAllowed) {
  TestServer server;
  for (const std::string_view path : {"/v1/messages", "/v1/messages/count_tokens",
                                      "/v1/pensieve/stop", "/v1/pensieve/clear-cache"}) {
    const Answer answer = server.answer(get(path));
    EXPECT_EQ(answer.status, 405U) << path;
    EXPECT_EQ(without_ids(answer.body),
              error("invalid_request_error", fmt::format("GET {}: use POST", path)));
    EXPECT_EQ(answer.header("allow"), "POST, OPTIONS");
  }
  for (const std::string_view path :
       {"/", "/health", "/v1/models", "/v1/models/scripted", "/v1/pensieve/ps"}) {
    EXPECT_EQ(server.answer(post(path, "{}")).status, 405U) << path;
  }
  EXPECT_FALSE(server.stop_asked());
}

TEST(Service, TheRequestIdInTheBodyIsTheOneInTheHeader) {
  TestServer server;
  const Answer answer = server.answer(get("/nothing"));
  EXPECT_NE(answer.body.find("\"" + answer.header("request-id") + "\""), std::string::npos);
  EXPECT_NE(server.answer(get("/nothing")).header("request-id"), answer.header("request-id"));
}

TEST(Service, AProtocolErrorIsAnErrorOfTheApi) {
  TestServer::Options options;
  options.connection.body_bytes_max = 100;
  TestServer server(std::move(options));
  EXPECT_EQ(without_ids(server.answer(post("/v1/messages", std::string(101, 'x'))).body),
            error("request_too_large", "the request body is larger than this server accepts"));
  EXPECT_EQ(without_ids(server.answer("nonsense\r\n\r\n").body),
            error("invalid_request_error", "not a proper HTTP request: bad method"));
}

TEST(Service, HeadOfTheFrontPageIsEmpty) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send("HEAD / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" + get("/"));
  EXPECT_EQ(probe.head().status, 200U);
  const Answer page = probe.answer();
  EXPECT_EQ(page.status, 200U);
  EXPECT_NE(page.body.find("Memory: Safe (8.00GB available)"), std::string::npos) << page.body;
}

TEST(Service, AListedOriginMayReadEveryAnswer) {
  TestServer::Options options;
  options.service.access.allowed_origins = {"https://example.com"};
  TestServer server(std::move(options));
  const std::string headers = "origin: https://example.com\r\n";
  const Answer asked =
      server.answer("OPTIONS /v1/messages HTTP/1.1\r\nhost: localhost\r\n" + headers +
                    "access-control-request-headers: authorization,x-stainless-os\r\n\r\n");
  EXPECT_EQ(asked.status, 204U);
  EXPECT_EQ(asked.header("access-control-allow-methods"), "GET, POST, DELETE, OPTIONS");
  EXPECT_EQ(asked.header("access-control-allow-headers"), "authorization,x-stainless-os");
  EXPECT_EQ(asked.header("content-length"), "");
  std::string whole = ask("say hello");
  std::string stream = ask_stream("say hello");
  for (std::string* request : {&whole, &stream}) {
    request->insert(request->find("\r\n") + 2, headers);
  }
  for (const std::string& request :
       {whole, stream, get("/health", headers), get("/nothing", headers)}) {
    const Answer answer = server.answer(request);
    EXPECT_EQ(answer.header("access-control-allow-origin"), "https://example.com") << request;
    EXPECT_EQ(answer.header("vary"), "origin");
    EXPECT_NE(answer.header("access-control-expose-headers").find("request-id"), std::string::npos);
  }
  EXPECT_EQ(asked.header("access-control-allow-origin"), "https://example.com");
  EXPECT_EQ(server.answer(get("/health")).header("access-control-allow-origin"), "");
}

TEST(Service, AnOriginThatIsNotListedIsRefusedAlsoBeforeItAsks) {
  TestServer server;
  const Answer answer = server.answer(
      "OPTIONS /v1/messages HTTP/1.1\r\nhost: localhost\r\norigin: https://example.com\r\n\r\n");
  EXPECT_EQ(answer.status, 403U);
  EXPECT_EQ(answer.header("access-control-allow-origin"), "");
}

TEST(Service, ATargetInAbsoluteFormIsTheSameRoute) {
  TestServer server;
  const auto status = [&](const std::string& target) {
    return server.answer("GET " + target + " HTTP/1.1\r\nhost: localhost\r\n\r\n").status;
  };
  EXPECT_EQ(status("http://127.0.0.1:7777/v1/models?limit=1"), 200U);
  EXPECT_EQ(status("HTTP://localhost"), 200U);
  EXPECT_EQ(status("http://127.0.0.1/nothing"), 404U);
  EXPECT_EQ(status("http://example.com/v1/models"), 403U) << "the target's host counts";
}

TEST(Service, AKeyIsAskedForOverHttp) {
  TestServer::Options options;
  options.service.access.keys = {{.name = "", .secret = "secret"}};
  TestServer server(std::move(options));
  const Answer refused = server.answer(get("/v1/models", "x-api-key: wrong\r\n"));
  EXPECT_EQ(refused.status, 401U);
  EXPECT_EQ(refused.header("x-should-retry"), "false");
  EXPECT_EQ(without_ids(refused.body), error("authentication_error", "invalid x-api-key"));
  EXPECT_EQ(server.answer(get("/v1/models", "X-API-Key: secret\r\n")).status, 200U);
  EXPECT_EQ(server.answer(get("/v1/models", "Authorization: Bearer secret\r\n")).status, 200U);
  EXPECT_EQ(server.answer(get("/health")).status, 200U);
  EXPECT_EQ(server.answer(post("/v1/pensieve/stop", "")).status, 401U);
  EXPECT_FALSE(server.stop_asked());
}

TEST(Service, AnUnknownModelIsNotFound) {
  TestServer server;
  std::string request = ask("say hello");
  request.replace(request.find("scripted"), 8, "gpt-four");
  const Answer answer = server.answer(request);
  EXPECT_EQ(answer.status, 404U);
  EXPECT_EQ(without_ids(answer.body),
            error("not_found_error", "model: gpt-four (this server has scripted)"));
  EXPECT_EQ(server.answer(count("x", "gpt-four")).status, 404U);
}

TEST(Service, AnyClaudeModelIsTheOneThatIsHereUnderTheNameThatWasAskedFor) {
  TestServer server;
  const Answer answer =
      server.answer(post("/v1/messages", R"({"model":"claude-opus-5-5","max_tokens":9,"messages":[)"
                                         R"({"role":"user","content":"script: say hello"}]})"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_NE(answer.body.find(R"("model":"claude-opus-5-5")"), std::string::npos) << answer.body;
  EXPECT_EQ(server.answer(count("x", "claude-haiku-4-5-20251001")).status, 200U);
  EXPECT_EQ(server.answer(get("/v1/models/claude-opus-5-5")).status, 200U);
}

TEST(Service, TokensAreCounted) {
  TestServer server;
  const Answer answer = server.answer(count("one two three"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.body, R"({"input_tokens":6})");
  EXPECT_EQ(server.answer(post("/v1/messages/count_tokens", R"({"model":"scripted"})")).status,
            400U);
}

TEST(Service, TokensAreCountedWhileTheModelIsBusy) {
  TestServer::Options options;
  options.pool.sequences_max = 1;
  TestServer server(std::move(options));
  HttpProbe busy = server.connect();
  busy.send(ask_stream("delay 5; endless word"));
  EXPECT_EQ(busy.head().status, 200U);
  EXPECT_EQ(server.answer(count("one two three")).status, 200U);
}

TEST(Service, ModelsAreListed) {
  TestServer::Options options;
  options.service.started_at = WallTime(std::chrono::seconds(1'767'225'600));  // 2026-01-01.
  options.model_lines = "context_tokens 4096";
  TestServer server(std::move(options));
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  const std::string model = server.answer(get("/v1/models/scripted")).body;
  EXPECT_TRUE(
      model.starts_with(R"({"type":"model","id":"scripted","display_name":"scripted","created_at":)"
                        R"("2026-01-01T00:00:00Z","max_input_tokens":4096,"max_tokens":4096,)"
                        R"("lifecycle":"active","capabilities":{)"))
      << model;
  EXPECT_EQ(
      server.answer(get("/v1/models?limit=1000")).body,
      R"({"data":[)" + model +
          R"(],"has_more":false,"first_id":"scripted","last_id":"scripted","object":"list"})");
  EXPECT_EQ(server.answer(get("/v1/models?after_id=scripted")).body,
            R"({"data":[],"has_more":false,"first_id":null,"last_id":null,"object":"list"})");
  EXPECT_EQ(server.answer(get("/v1/models?limit=1001")).status, 400U);
  EXPECT_EQ(server.answer(get("/v1/models/none")).status, 404U);
}

TEST(Service, TheWindowOfAModelThatWasNeverLoadedIsNotKnown) {
  TestServer server;
  EXPECT_NE(server.answer(get("/v1/models/scripted"))
                .body.find(R"("max_input_tokens":null,"max_tokens":null)"),
            std::string::npos);
}

TEST(Service, AModelWithASlashInItsNameIsFoundByItsEncodedName) {
  TestServer::Options options;
  options.pool.model.id = "Qwen/Qwen3-8B:Q4_K_M";
  TestServer server(std::move(options));
  const Answer answer = server.answer(get("/v1/models/Qwen%2FQwen3-8B:Q4_K_M"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_NE(answer.body.find("Qwen3-8B:Q4_K_M"), std::string::npos);
  EXPECT_EQ(server.answer(get("/v1/models/Qwen%2FQwen3-8B")).status, 404U);
}

TEST(Service, PsTellsWhatTheModelDoes) {
  TestServer server;
  EXPECT_NE(server.answer(get("/v1/pensieve/ps")).body.find(R"("state":"unloaded","pid":0)"),
            std::string::npos);
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 5; endless word"));
  running.head();
  ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
  const std::string body = server.answer(get("/v1/pensieve/ps")).body;
  for (const std::string& part :
       {std::string(R"({"models":[{"id":"scripted","engine":"scripted","state":"ready",)"),
        fmt::format(R"("pid":{},"context_tokens":8192,"parallel":4,"requests_active":1,)"
                    R"("requests_running":1,"requests_waiting":0,)",
                    server.pool().status().pid),
        std::string(R"("worker_ends":{},"protections":[{"name":)"),
        std::string(R"(],"memory":{"level":"Safe","available_bytes":8589934592,)")}) {
    EXPECT_NE(body.find(part), std::string::npos) << body;
  }
}

TEST(Service, ClearCacheDropsWhatConversationsLeftAndSaysHowMuch) {
  TestServer server;
  EXPECT_EQ(server.answer(post("/v1/pensieve/clear-cache", "")).body,
            R"({"freed_bytes":0,"dropped_tokens":0,"available_bytes_before":8589934592,)"
            R"("available_bytes_after":8589934592})");
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  const std::string body = server.answer(post("/v1/pensieve/clear-cache", "")).body;
  EXPECT_NE(body.find(R"("dropped_tokens":7,)"), std::string::npos) << body;
  EXPECT_NE(server.answer(ask("say hello")).body.find(R"("cache_read_input_tokens":0)"),
            std::string::npos);
}

TEST(Service, ClearCacheWorksWhereMemoryIsShortOrUnknown) {
  TestServer server;
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  server.set_available(100_MiB);
  EXPECT_EQ(server.answer(post("/v1/pensieve/clear-cache", "")).status, 200U);
  server.memory.fail("gone");
  server.let_pass(std::chrono::seconds(4));
  const Answer answer = server.answer(post("/v1/pensieve/clear-cache", ""));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_NE(answer.body.find(R"("available_bytes_after":null)"), std::string::npos);
}

TEST(Service, StopAnswersBeforeItStops) {
  TestServer server;
  const Answer answer = server.answer(post("/v1/pensieve/stop", ""));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.body, R"({"status":"stopping"})");
  EXPECT_TRUE(server.wait_until([&] { return server.stop_asked(); }));
}

TEST(Service, WhileItDrainsRunningRequestsFinishAndNewOnesAreRefused) {
  TestServer server;
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 5; repeat 20 word"));
  running.head();
  server.service().begin_drain();
  const Answer refused = server.answer(ask("say hello"));
  EXPECT_EQ(refused.status, 503U);
  EXPECT_EQ(refused.header("retry-after"), "5");
  EXPECT_EQ(without_ids(refused.body), error("overloaded_error", "the server is shutting down"));
  const std::string health = server.answer(get("/health")).body;
  EXPECT_TRUE(health.starts_with(R"({"status":"draining",)")) << health;
  EXPECT_NE(health.find(R"("accepting_requests":false)"), std::string::npos) << health;
  EXPECT_TRUE(running.event_names().ends_with("message_delta message_stop"));
}

TEST(Service, HealthAnswersWhileTheModelIsLoading) {
  TestServer::Options options;
  options.model_lines = "load_ms 60000";
  TestServer server(std::move(options));
  HttpProbe waiting = server.connect();
  waiting.send(ask("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  EXPECT_NE(server.answer(get("/health")).body.find(R"("state":"loading")"), std::string::npos);
  EXPECT_TRUE(waiting.is_silent());
}

TEST(Service, AModelThatDoesNotFitNowIsARefusalWithTheNumbers) {
  TestServer::Options options;
  options.model_lines = "plan_mib 10240";
  TestServer server(std::move(options));
  const Answer answer = server.answer(ask("say hello"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("retry-after"), "10");
  EXPECT_NE(answer.body.find("overloaded_error"), std::string::npos);
  EXPECT_NE(answer.body.find("10.00GB"), std::string::npos) << answer.body;
  server.set_available(12_GiB);
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(Service, AModelLargerThanTheMachineIsTheRequestsFault) {
  TestServer::Options options;
  options.model_lines = "plan_mib 102400";
  TestServer server(std::move(options));
  const Answer answer = server.answer(ask("say hello"));
  EXPECT_EQ(answer.status, 400U);
  EXPECT_NE(answer.body.find("This machine is too small for it"), std::string::npos);
}

TEST(Service, AWorkerThatCannotBeStartedIsAnErrorNotToBeRetried) {
  TestServer::Options options;
  options.pool.worker_program = "/nowhere/pensieve-worker";
  TestServer server(std::move(options));
  const Answer answer = server.answer(ask("say hello"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("x-should-retry"), "false");
  EXPECT_NE(answer.body.find(R"("type":"api_error")"), std::string::npos);
}

TEST(Service, ABodyThatComesInDropsIsA408OfTheApi) {
  TestServer::Options options;
  options.connection.request_max = std::chrono::milliseconds(200);
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send("POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 20000\r\n\r\n");
  while (probe.is_silent()) probe.send("drop");  // For longer than this it would be a 400.
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 408U);
  EXPECT_TRUE(answer.header("request-id").starts_with("req_"));
  EXPECT_TRUE(answer.body.starts_with(R"({"type":"error","error":{"type":"timeout_error",)"))
      << answer.body;
}

}  // namespace
}  // namespace pensieve::gateway
