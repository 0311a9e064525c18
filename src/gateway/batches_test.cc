// Message batches over HTTP: who runs when, what comes of each request, and what a restart keeps.
#include "gateway/batches.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::string_view kPath = "/v1/messages/batches";

/// One request of a batch; its custom id is its place in the list.
std::string params(std::string_view script, std::string_view members = "") {
  return fmt::format(
      R"({{"model":"scripted","max_tokens":1000,"messages":[{{"role":"user","content":)"
      R"("script: {}"}}]{}{}}})",
      script, members.empty() ? "" : ",", members);
}

class BatchesTest : public testing::Test {
 protected:
  TestServer::Options options(std::uint32_t places = 4) {
    TestServer::Options options;
    options.batches_directory = folder_.at("batches");
    options.pool.sequences_max = places;
    return options;
  }
  static json::value ask(TestServer& server, const std::string& request, unsigned status = 200) {
    const Answer answer = server.answer(request);
    EXPECT_EQ(answer.status, status) << answer.body;
    EXPECT_FALSE(answer.header("request-id").empty());
    return json::parse(answer.body);
  }
  static std::string create(TestServer& server, const std::vector<std::string>& requests) {
    std::string list;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      list +=
          fmt::format(R"({}{{"custom_id":"{}","params":{}}})", i > 0 ? "," : "", i, requests[i]);
    }
    const json::value batch = ask(server, post(kPath, fmt::format(R"({{"requests":[{}]}})", list)));
    EXPECT_EQ(batch.at("processing_status"), "in_progress");
    return batch.at("id").as_string().c_str();
  }
  static json::value retrieve(TestServer& server, const std::string& id) {
    return ask(server, get(fmt::format("{}/{}", kPath, id)));
  }
  static std::string del(const std::string& id) {
    return fmt::format("DELETE {}/{} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", kPath, id);
  }
  static std::string cancel(const std::string& id) {
    return post(fmt::format("{}/{}/cancel", kPath, id), "");
  }
  /// Lets time pass until it has ended; its counts then.
  static std::string counts_at_end(TestServer& server, const std::string& id) {
    EXPECT_TRUE(server.wait_until([&] {
      server.let_pass(milliseconds(250));
      return retrieve(server, id).at("processing_status") == "ended";
    }));
    const json::value counts = retrieve(server, id).at("request_counts");
    std::string shown;
    for (const std::string_view name :
         {"processing", "succeeded", "errored", "canceled", "expired"}) {
      shown += fmt::format("{}{}", shown.empty() ? "" : " ", counts.at(name).to_number<int>());
    }
    return shown;
  }
  /// The results, in the order of the requests, without new ids.
  static std::vector<std::string> results(TestServer& server, const std::string& id) {
    const Answer answer = server.answer(get(fmt::format("{}/{}/results", kPath, id)));
    EXPECT_EQ(answer.status, 200U);
    EXPECT_EQ(answer.header("content-type"), "application/x-jsonl");
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < answer.body.size();) {
      const std::size_t end = answer.body.find('\n', at);
      lines.push_back(without_ids(answer.body.substr(at, end - at)));
      at = end + 1;
    }
    std::ranges::sort(lines);
    return lines;
  }
  static bool wait_for_running(TestServer& server, std::size_t count) {
    return server.wait_until([&] {
      server.let_pass(milliseconds(1));
      return server.running() == count;
    });
  }

  TemporaryFolder folder_;
};

TEST(BatchLanes, OnePlaceStaysFreeAndNothingRunsBelowSafe) {
  using memory::Level;
  EXPECT_EQ(batch_lanes(Level::kSafe, 4, 0), 3U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 4, 1), 1U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 4, 2), 1U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 4, 3), 0U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 4, 100), 0U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 1, 0), 1U);
  EXPECT_EQ(batch_lanes(Level::kSafe, 1, 1), 0U);
  for (const Level level :
       {Level::kCaution, Level::kWarning, Level::kCritical, Level::kEmergency}) {
    EXPECT_EQ(batch_lanes(level, 4, 0), 0U);
  }
}

TEST_F(BatchesTest, EachRequestHasItsResult) {
  TestServer server(options());
  const std::string id = create(
      server, {params("say hello"), params("say x", R"("temperature":3)"), R"({"no":1})",
               params("say x", R"("stream":true)"),
               R"({"model":"gpt","max_tokens":1,"messages":[{"role":"user","content":"x"}]})"});
  EXPECT_EQ(counts_at_end(server, id), "0 1 4 0 0");
  const auto errored = [](int custom_id, std::string_view type, std::string_view message) {
    return fmt::format(R"({{"custom_id":"{}","result":{{"type":"errored","error":{{"type":"error",)"
                       R"("error":{{"type":"{}","message":"{}"}},"request_id":"req_*"}}}}}})",
                       custom_id, type, message);
  };
  EXPECT_EQ(
      results(server, id),
      (std::vector<std::string>{
          R"({"custom_id":"0","result":{"type":"succeeded","message":{"id":"msg_*","type":)"
          R"("message","role":"assistant","model":"scripted","content":[{"type":"text","text":)"
          R"("hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":6,)"
          R"("cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,)"
          R"("output_tokens_details":{"thinking_tokens":0}}}}})",
          errored(1, "invalid_request_error",
                  "temperature: Input should be less than or equal to 2"),
          errored(2, "invalid_request_error", "model: Field required"),
          errored(3, "invalid_request_error", "stream: a batch has no streams"),
          errored(4, "not_found_error", "model: gpt (this server has scripted)")}));
}

TEST_F(BatchesTest, ABatchSaysWhenAndWhereItsResultsAre) {
  TestServer server(options());
  const std::string id = create(server, {params("say hello")});
  EXPECT_TRUE(retrieve(server, id).at("results_url").is_null());
  EXPECT_EQ(retrieve(server, id).at("request_counts").at("processing"), 1);
  EXPECT_EQ(retrieve(server, id).at("expires_at"), "2026-01-02T00:00:00Z");
  ask(server, get(fmt::format("{}/{}/results", kPath, id)), 400);
  server.wall += seconds(5);
  counts_at_end(server, id);
  const json::value batch = retrieve(server, id);
  EXPECT_EQ(batch.at("created_at"), "2026-01-01T00:00:00Z");
  EXPECT_EQ(batch.at("ended_at"), "2026-01-01T00:00:05Z");
  EXPECT_EQ(batch.at("results_url"),
            json::value(fmt::format("http://127.0.0.1{}/{}/results", kPath, id)));
  const json::value proxied = json::parse(
      server.answer(get(fmt::format("{}/{}", kPath, id), "x-forwarded-proto: https\r\n")).body);
  EXPECT_EQ(proxied.at("results_url"),
            json::value(fmt::format("https://127.0.0.1{}/{}/results", kPath, id)));
}

TEST_F(BatchesTest, ResultsHaveAHead) {
  TestServer server(options());
  const std::string id = create(server, {params("say hello")});
  counts_at_end(server, id);
  HttpProbe probe = server.connect();
  probe.send(fmt::format("HEAD {}/{}/results HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", kPath, id));
  const Answer head = probe.head();
  EXPECT_EQ(head.status, 200U);
  EXPECT_EQ(head.header("content-type"), "application/x-jsonl");
  probe.send(get("/health"));  // Nothing of a body stands in front of its answer.
  EXPECT_EQ(probe.answer().status, 200U);
}

TEST_F(BatchesTest, ABatchWaitsWhileThePlaceIsSomebodyElses) {
  TestServer server(options(1));
  HttpProbe interactive = server.connect();
  interactive.send(ask_stream("delay 2; endless word"));
  interactive.head();
  const std::string id = create(server, {params("say hello")});
  for (int i = 0; i < 10; ++i) server.let_pass(seconds(1));
  EXPECT_EQ(server.service().batches_running(), 0U);
  interactive.hang_up();
  EXPECT_EQ(counts_at_end(server, id), "0 1 0 0 0");
}

TEST_F(BatchesTest, ARunningRequestGivesItsPlaceToWhoComesAndRunsLater) {
  TestServer server(options(1));
  const std::string id = create(server, {params(server.once("slow 60000") + "; say hello")});
  ASSERT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(1));
    return server.once_happened();
  }));
  HttpProbe interactive = server.connect();
  interactive.send(gateway::ask("say now"));
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  EXPECT_TRUE(server.wait_until([&] { return server.service().batches_running() == 0; }))
      << "without waiting for the next sample";
  server.kill_worker();  // It sleeps for a minute, as no engine would.
  EXPECT_EQ(interactive.answer().status, 200U);
  EXPECT_EQ(retrieve(server, id).at("processing_status"), "in_progress");
  EXPECT_EQ(counts_at_end(server, id), "0 1 0 0 0");
}

TEST_F(BatchesTest, SeveralRunAtOnceAndOnePlaceStaysFree) {
  TestServer server(options(4));
  const std::string endless = params("delay 2; endless word", R"("max_tokens":100000)");
  create(server, {endless, endless, endless, endless});
  ASSERT_TRUE(wait_for_running(server, 3));
  EXPECT_EQ(server.answer(gateway::ask("say hello")).status, 200U);
  HttpProbe one = server.connect();
  one.send(ask_stream("delay 2; endless word"));
  one.head();
  EXPECT_TRUE(wait_for_running(server, 2)) << "the client's and one of the batch";
  EXPECT_EQ(server.service().batches_running(), 1U);
}

TEST_F(BatchesTest, BelowSafeNothingOfABatchRuns) {
  TestServer server(options());
  const std::string id =
      create(server, {params("delay 2; endless word", R"("max_tokens":100000)"), params("say x")});
  ASSERT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(1));
    return server.running() == 1 && server.service().batches_running() == 1;
  }));
  server.set_available(2560_MiB);
  EXPECT_TRUE(server.wait_until([&] { return server.service().batches_running() == 0; }));
  for (int i = 0; i < 5; ++i) server.let_pass(seconds(1));
  EXPECT_EQ(server.service().batches_running(), 0U);
  server.set_available(8_GiB);
  EXPECT_TRUE(wait_for_running(server, 1)) << "it runs again";
  ask(server, cancel(id));
  EXPECT_EQ(counts_at_end(server, id), "0 1 0 1 0");
}

TEST_F(BatchesTest, ACanceledBatchEndsAndSaysWhatDidNotRun) {
  TestServer server(options(2));
  const std::string endless = params("delay 2; endless word", R"("max_tokens":100000)");
  const std::string runs =
      params(server.once("slow 1") + "; delay 2; endless word", R"("max_tokens":100000)");
  const std::string id = create(server, {params("say first"), runs, endless, endless});
  ASSERT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(1));
    return server.once_happened();
  }));
  const json::value canceling = ask(server, cancel(id));
  EXPECT_EQ(canceling.at("processing_status"), "canceling");
  EXPECT_EQ(canceling.at("cancel_initiated_at"), "2026-01-01T00:00:00Z");
  EXPECT_EQ(counts_at_end(server, id), "0 1 0 3 0");
  EXPECT_EQ(results(server, id)[3], R"({"custom_id":"3","result":{"type":"canceled"}})");
  EXPECT_EQ(ask(server, cancel(id)).at("processing_status"), "ended") << "no error";
}

TEST_F(BatchesTest, MetricsTellBatchesAndTheirRequestsByState) {
  TestServer server(options(2));
  const auto shows = [&](const std::vector<std::string>& lines) {
    const std::string body = server.answer(get("/metrics")).body;
    for (const std::string& line : lines) {
      EXPECT_NE(body.find("\n" + line + "\n"), std::string::npos) << line << "\n" << body;
    }
  };
  // What has ended is counted when its result is written, a moment after the worker said it.
  const auto becomes = [&](const std::vector<std::string>& lines) {
    EXPECT_TRUE(server.wait_until([&] {
      server.let_pass(milliseconds(1));
      const std::string body = server.answer(get("/metrics")).body;
      return std::ranges::all_of(lines, [&](const std::string& line) {
        return body.find("\n" + line + "\n") != std::string::npos;
      });
    }));
    shows(lines);
  };
  const std::string endless = params("delay 2; endless word", R"("max_tokens":100000)");
  const std::string runs =
      params(server.once("slow 1") + "; delay 2; endless word", R"("max_tokens":100000)");
  const std::string id = create(server, {params("say x"), params(""), runs, endless});
  create(server, {params("say y")});
  ASSERT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(1));
    return server.once_happened();
  }));
  becomes({R"(pensieve_kept_batches{state="in_progress"} 2)",
           R"(pensieve_kept_batches{state="ended"} 0)",
           R"(pensieve_batch_requests{state="waiting"} 2)",
           R"(pensieve_batch_requests{state="running"} 1)",
           R"(pensieve_batch_requests{state="succeeded"} 2)"});
  ask(server, cancel(id));
  shows({R"(pensieve_kept_batches{state="canceling"} 1)"});
  counts_at_end(server, id);
  becomes({R"(pensieve_batch_requests{state="canceled"} 2)"});
  // The other batch runs now that nobody is in its way.
  becomes({R"(pensieve_kept_batches{state="ended"} 2)"});
}

TEST_F(BatchesTest, WhatDidNotRunForADayHasExpired) {
  TestServer server(options());
  server.set_available(2560_MiB);
  const std::string id = create(server, {params("say x"), params("say y")});
  server.wall += std::chrono::hours(24) - seconds(1);
  server.let_pass(seconds(1));
  EXPECT_EQ(retrieve(server, id).at("processing_status"), "in_progress");
  server.wall += seconds(1);
  EXPECT_EQ(counts_at_end(server, id), "0 0 0 0 2");
  EXPECT_EQ(results(server, id)[0], R"({"custom_id":"0","result":{"type":"expired"}})");
}

TEST_F(BatchesTest, ABatchIsGone29DaysAfterItsCreation) {
  TestServer server(options());
  const std::string old = create(server, {params("say x")});
  EXPECT_EQ(counts_at_end(server, old), "0 1 0 0 0");
  server.wall += std::chrono::days(29) - seconds(1);
  const std::string young = create(server, {params("say y")});
  EXPECT_EQ(counts_at_end(server, young), "0 1 0 0 0");
  EXPECT_EQ(results(server, old).size(), 1U);
  server.wall += seconds(1);
  EXPECT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(250));
    return server.answer(get(fmt::format("{}/{}", kPath, old))).status == 404;
  }));
  EXPECT_EQ(results(server, young).size(), 1U);
}

TEST_F(BatchesTest, TheBatchOfAKeyThatIsGoneWaitsForIt) {
  const auto with_keys = [this](std::vector<ApiKey> keys) {
    TestServer::Options made = options(1);
    made.service.access.keys = std::move(keys);
    return made;
  };
  const auto with_key = [](std::string request) {
    return request.insert(request.find("\r\n") + 2, "x-api-key: one\r\n");
  };
  const std::string list =
      fmt::format(R"({{"requests":[{{"custom_id":"0","params":{}}}]}})", params("say x"));
  std::string path;
  {
    TestServer server(with_keys({{.name = "a", .secret = "one"}}));
    server.set_available(2560_MiB);
    const json::value made = ask(server, with_key(post(kPath, list)));
    path = fmt::format("{}/{}", kPath, made.at("id").as_string().c_str());
  }
  {
    TestServer server(with_keys({}));
    EXPECT_EQ(server.answer(get(path)).status, 404U);
    for (int i = 0; i < 20; ++i) server.let_pass(milliseconds(250));
    EXPECT_EQ(server.service().batches_running(), 0U);
  }
  TestServer server(with_keys({{.name = "b", .secret = "two"}, {.name = "a", .secret = "one"}}));
  EXPECT_EQ(ask(server, with_key(get(path))).at("processing_status"), "in_progress");
  EXPECT_TRUE(server.wait_until([&] {
    server.let_pass(milliseconds(250));
    return ask(server, with_key(get(path))).at("processing_status") == "ended";
  }));
}

TEST_F(BatchesTest, ABatchIsDeletedOnceItHasEnded) {
  TestServer server(options());
  server.set_available(2560_MiB);
  const std::string id = create(server, {params("say x")});
  EXPECT_EQ(ask(server, del(id), 400).at("error").at("message"),
            json::value(fmt::format("batch {} is still being processed; cancel it first", id)));
  ask(server, cancel(id));
  counts_at_end(server, id);
  EXPECT_EQ(ask(server, del(id)).at("type"), "message_batch_deleted");
  for (const std::string& request : {del(id), cancel(id), get(fmt::format("{}/{}", kPath, id)),
                                     get(fmt::format("{}/{}/results", kPath, id)),
                                     get(fmt::format("{}/..%2F..%2Fetc/results", kPath))}) {
    EXPECT_EQ(ask(server, request, 404).at("error").at("type"), "not_found_error");
  }
}

TEST_F(BatchesTest, BatchesAreListedTheNewestFirstInPages) {
  TestServer server(options());
  server.set_available(2560_MiB);
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(create(server, {params("say x")}));
  const json::value first = ask(server, get(fmt::format("{}?limit=2", kPath)));
  EXPECT_EQ(first.at("data").as_array().size(), 2U);
  EXPECT_EQ(first.at("first_id"), json::value(ids[2]));
  EXPECT_EQ(first.at("last_id"), json::value(ids[1]));
  EXPECT_TRUE(first.at("has_more").as_bool());
  const json::value last = ask(server, get(fmt::format("{}?limit=2&after_id={}", kPath, ids[1])));
  EXPECT_EQ(last.at("data").as_array().front().at("id"), json::value(ids[0]));
  EXPECT_FALSE(last.at("has_more").as_bool());
  ask(server, get(fmt::format("{}?limit=0", kPath)), 400);
}

TEST_F(BatchesTest, AServerThatStartsAgainGoesOnWhereTheLastOneEnded) {
  std::string id;
  {
    TestServer server(options(1));
    id = create(server, {params("say first"), params("delay 2; endless word"), params("say last")});
    ASSERT_TRUE(wait_for_running(server, 1));
  }
  TestServer server(options(1));
  EXPECT_EQ(retrieve(server, id).at("processing_status"), "in_progress");
  EXPECT_EQ(counts_at_end(server, id), "0 3 0 0 0");
  const std::vector<std::string> lines = results(server, id);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_NE(lines[0].find(R"("text":"first")"), std::string::npos);
  EXPECT_NE(lines[1].find(R"("stop_reason":"max_tokens")"), std::string::npos);
  EXPECT_NE(lines[2].find(R"("text":"last")"), std::string::npos);
}

TEST_F(BatchesTest, ARequestThatAlwaysRunsOutOfMemoryEndsAfterItsTriesAndTheNextOneRuns) {
  TestServer server(options(1));
  const std::string id = create(server, {params("badalloc"), params("say hello")});
  EXPECT_TRUE(server.wait_until([&] {
    // A load or an answer that waits must not wait for minutes at once.
    server.let_pass(server.service().batches_running() == 0 ? Duration(seconds(60))
                                                            : Duration(milliseconds(1)));
    return retrieve(server, id).at("processing_status") == "ended";
  }));
  EXPECT_NE(results(server, id)[0].find(R"("type":"overloaded_error")"), std::string::npos);
  EXPECT_NE(results(server, id)[1].find(R"("text":"hello")"), std::string::npos);
  EXPECT_EQ(server.pool().status().ends[worker::WorkerEnd::kOutOfMemory], 2 * Batches::kTriesMax);
}

TEST_F(BatchesTest, WrongMethodsAndUnknownVerbsAreRefused) {
  TestServer server(options());
  EXPECT_EQ(server.answer(del("")).status, 404U);
  EXPECT_EQ(server.answer(get(fmt::format("{}/x/cancel", kPath))).header("allow"), "POST, OPTIONS");
  EXPECT_EQ(server.answer(post(fmt::format("{}/x/results", kPath), "")).status, 405U);
  EXPECT_EQ(server.answer(post(fmt::format("{}/x", kPath), "")).header("allow"),
            "GET, HEAD, DELETE, OPTIONS");
  EXPECT_EQ(server.answer(get(fmt::format("{}/x/y", kPath))).status, 404U);
  EXPECT_EQ(server.answer(post(kPath, "{}")).status, 400U);
}

TEST_F(BatchesTest, AKeySeesItsOwnBatchesAloneAndItsTokensAreCounted) {
  TestServer::Options with_keys = options(1);
  with_keys.service.access.keys = {{.name = "a", .secret = "one", .tokens_per_day_max = 7},
                                   {.name = "b", .secret = "two"}};
  TestServer server(std::move(with_keys));
  const auto as = [](std::string request, std::string_view key) {
    return request.insert(request.find("\r\n") + 2, fmt::format("x-api-key: {}\r\n", key));
  };
  const auto post_batch = [&](std::string_view key) {
    const std::string list = fmt::format(
        R"({{"requests":[{{"custom_id":"0","params":{0}}},{{"custom_id":"1","params":{0}}}]}})",
        params("say x"));
    const json::value made = ask(server, as(post(kPath, list), key));
    return std::string(made.at("id").as_string().c_str());
  };
  const auto status = [&](const std::string& id, std::string_view key) {
    const Answer answer = server.answer(as(get(fmt::format("{}/{}", kPath, id)), key));
    return answer.status == 200
               ? std::string(json::parse(answer.body).at("processing_status").as_string().c_str())
               : std::to_string(answer.status);
  };
  server.wall += std::chrono::hours(1);
  server.set_available(2560_MiB);
  const std::string of_a = post_batch("one");
  const std::string of_b = post_batch("two");
  EXPECT_EQ(status(of_a, "one"), "in_progress");
  EXPECT_EQ(status(of_a, "two"), "404");
  EXPECT_EQ(ask(server, as(get(kPath), "two")).at("data").as_array().size(), 1U);
  server.set_available(8_GiB);
  const auto ends = [&](const std::string& id, std::string_view key) {
    return server.wait_until([&] {
      server.let_pass(milliseconds(1));
      return status(id, key) == "ended";
    });
  };
  EXPECT_TRUE(ends(of_b, "two")) << "who has used up its tokens holds up nobody else";
  EXPECT_EQ(status(of_a, "one"), "in_progress") << "one request of two took all of its tokens";
  EXPECT_EQ(server.answer(as(gateway::ask("say x"), "one")).status, 429U);
  server.wall += std::chrono::hours(23);
  EXPECT_TRUE(ends(of_a, "one")) << "the next day";
}

TEST_F(BatchesTest, AServerWithoutBatchesSaysSoForGood) {
  TestServer server;
  const Answer answer = server.answer(get(kPath));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("x-should-retry"), "false");
  EXPECT_NE(answer.body.find(R"("type":"api_error")"), std::string::npos);
}

TEST_F(BatchesTest, NoBatchIsTakenWhereMemoryIsCritical) {
  TestServer server(options());
  server.set_available(512_MiB);
  EXPECT_EQ(server.answer(post(kPath, R"({"requests":[]})")).status, 503U);
}

}  // namespace
}  // namespace pensieve::gateway
