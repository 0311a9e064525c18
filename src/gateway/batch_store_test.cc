// Batches on disk: what a server finds that starts again, whatever the last one was doing.
#include "gateway/batch_store.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace fs = std::filesystem;

constexpr WallTime kNow{std::chrono::seconds(1000)};

class BatchStoreTest : public testing::Test {
 protected:
  BatchStoreTest() { reopen(); }

  void reopen() {
    store_.reset();
    auto opened = BatchStore::open(folder_.at("batches"));
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = *std::move(opened);
  }
  std::string create(std::uint32_t requests = 3, const std::string& owner = "me") {
    std::vector<api::BatchRequest> list;
    for (std::uint32_t i = 0; i < requests; ++i) list.push_back({std::to_string(i), "{}"});
    BatchRecord record;
    record.owner = owner;
    record.created_at = kNow;
    record.expires_at = kNow + std::chrono::hours(24);
    const BatchStore::Creation creation = store_->create(record, list);
    apply(creation.change);
    return creation.record->id;
  }
  /// Copies of the files of `id`: creating so many would wait for the disk so many times.
  void copy_until_there_are(const std::string& id, std::size_t batches) {
    store_.reset();
    const fs::path from = fs::path(folder_.at("batches")) / id;
    for (std::size_t i = 1; i < batches; ++i) {
      fs::copy(from, fs::path(folder_.at("batches")) / fmt::format("{}{:04}", id, i));
    }
    reopen();
    ASSERT_EQ(store_->batches().size(), batches);
  }
  void apply(const BatchStore::Change& change) {
    const auto written = change.write();
    ASSERT_TRUE(written) << written.error().message;
    change.commit();
  }
  void append(const std::string& id, std::uint32_t index) {
    const auto appended =
        store_->append(id, index, api::succeeded_line(std::to_string(index), R"({"n":1})"));
    EXPECT_TRUE(appended) << appended.error().message;
  }
  std::vector<std::uint32_t> unfinished(const std::string& id) { return store_->unfinished(id); }
  std::string results(const std::string& id) {
    ResultsFile file(store_->results_path(id));
    std::string all;
    for (std::string piece = file.next(); !piece.empty(); piece = file.next()) {
      EXPECT_LE(piece.size(), ResultsFile::kPieceBytes);
      all += piece;
    }
    return all;
  }
  fs::path file(const std::string& id, std::string_view name) {
    return fs::path(folder_.at("batches")) / id / name;
  }

  TemporaryFolder folder_;
  std::unique_ptr<BatchStore> store_;
};

TEST_F(BatchStoreTest, WhatWasCreatedIsThereAfterARestart) {
  const std::string first = create(2);
  const std::string second = create(1);
  reopen();
  ASSERT_EQ(store_->batches().size(), 2U);
  EXPECT_EQ(store_->batches()[0].id, first);
  EXPECT_EQ(store_->batches()[1].id, second);
  const BatchRecord* record = store_->find(first);
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(record->owner, "me");
  EXPECT_EQ(record->created_at, kNow);
  EXPECT_EQ(record->expires_at, kNow + std::chrono::hours(24));
  EXPECT_FALSE(record->ended_at);
  EXPECT_EQ(record->requests, 2U);
  EXPECT_EQ(unfinished(first), (std::vector<std::uint32_t>{0, 1}));
  EXPECT_GT(record->bytes, 0U);
  EXPECT_EQ(store_->find("msgbatch_other"), nullptr);
}

TEST_F(BatchStoreTest, EachRequestCanBeReadAndOneBeyondTheLastIsAnError) {
  const std::string id = create(3);
  for (const std::uint32_t index : {2U, 0U, 1U}) {
    const auto request = store_->request(id, index);
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_EQ(request->custom_id, std::to_string(index));
    EXPECT_EQ(request->params, "{}");
  }
  EXPECT_FALSE(store_->request(id, 3));
}

TEST_F(BatchStoreTest, ResultsAreCountedAndStayAfterARestart) {
  const std::string id = create(3);
  append(id, 2);
  append(id, 0);
  reopen();
  EXPECT_EQ(unfinished(id), std::vector<std::uint32_t>{1});
  EXPECT_EQ(store_->find(id)->tally, (api::BatchTally{2, 0, 0, 0}));
  EXPECT_EQ(results(id), api::succeeded_line("2", R"({"n":1})") + "\n" +
                             api::succeeded_line("0", R"({"n":1})") + "\n");
}

TEST_F(BatchStoreTest, ATornLastLineIsCutOffAndItsRequestRunsAgain) {
  const std::string id = create(3);
  append(id, 0);
  const auto whole = fs::file_size(file(id, "results.jsonl"));
  append(id, 1);
  const auto both = fs::file_size(file(id, "results.jsonl"));
  for (auto size = both - 1; size > whole; --size) {
    fs::resize_file(file(id, "results.jsonl"), size);
    reopen();
    EXPECT_EQ(unfinished(id), (std::vector<std::uint32_t>{1, 2})) << "torn at " << size;
    EXPECT_EQ(fs::file_size(file(id, "results.jsonl")), whole);
    append(id, 1);
    EXPECT_EQ(unfinished(id), std::vector<std::uint32_t>{2});
  }
}

TEST_F(BatchStoreTest, ABatchWhoseFilesDoNotAgreeIsLeftOutAndTheOthersStay) {
  const std::string good = create(1);
  const std::string torn = create(5);
  const std::string strange = create(1);
  fs::resize_file(file(torn, "requests.jsonl"), 10);
  std::ofstream(file(strange, "batch.json")) << "{}";
  reopen();
  ASSERT_EQ(store_->batches().size(), 1U);
  EXPECT_EQ(store_->batches()[0].id, good);
}

TEST_F(BatchStoreTest, WhatWasBeingMadeOrRemovedIsSweptAway) {
  create(1);
  const fs::path half = fs::path(folder_.at("batches")) / ".msgbatch_half";
  fs::create_directory(half);
  std::ofstream(half / "requests.jsonl") << "x";
  reopen();
  EXPECT_FALSE(fs::exists(half));
  EXPECT_EQ(store_->batches().size(), 1U);
}

TEST_F(BatchStoreTest, CancelAndEndStayAndTheFirstCancelCounts) {
  const std::string id = create(1);
  apply(store_->cancel(id, kNow + std::chrono::seconds(1)));
  apply(store_->cancel(id, kNow + std::chrono::seconds(2)));
  append(id, 0);
  apply(store_->end(id, kNow + std::chrono::seconds(3)));
  reopen();
  EXPECT_EQ(store_->find(id)->cancel_initiated_at, kNow + std::chrono::seconds(1));
  EXPECT_EQ(store_->find(id)->ended_at, kNow + std::chrono::seconds(3));
  EXPECT_EQ(store_->find(id)->tally, (api::BatchTally{1, 0, 0, 0}));
}

TEST_F(BatchStoreTest, WhatWasRemovedIsGoneAndItsBytesWithIt) {
  const std::string id = create(1);
  const std::string other = create(1);
  apply(store_->remove(id));
  EXPECT_EQ(store_->find(id), nullptr);
  EXPECT_EQ(store_->bytes(), store_->find(other)->bytes);
  EXPECT_FALSE(fs::exists(file(id, "")));
  reopen();
  EXPECT_EQ(store_->batches().size(), 1U);
}

TEST_F(BatchStoreTest, NothingIsSaidOfABatchBeforeItIsOnTheDisk) {
  std::vector<api::BatchRequest> list{{"0", "{}"}};
  const BatchStore::Creation creation = store_->create({}, list);
  ASSERT_TRUE(creation.change.write());
  EXPECT_EQ(store_->find(creation.record->id), nullptr);
  creation.change.commit();
  const std::string id = creation.record->id;
  append(id, 0);
  const BatchStore::Change end = store_->end(id, kNow);
  ASSERT_TRUE(end.write());
  EXPECT_FALSE(store_->find(id)->ended_at);
  end.commit();
  EXPECT_TRUE(store_->find(id)->ended_at);
}

TEST_F(BatchStoreTest, ABatchDoesNotEndWhereItsResultsCannotBeForcedToTheDisk) {
  const std::string id = create(1);
  append(id, 0);
  const BatchStore::Change end = store_->end(id, kNow);
  fs::rename(file(id, "results.jsonl"), file(id, "moved"));
  const auto written = end.write();
  ASSERT_FALSE(written);
  EXPECT_NE(written.error().message.find("results.jsonl"), std::string::npos);
  fs::rename(file(id, "moved"), file(id, "results.jsonl"));
  reopen();
  EXPECT_FALSE(store_->find(id)->ended_at) << "the record says so all the same";
}

TEST_F(BatchStoreTest, WhatCannotBeCreatedLeavesNothing) {
  const fs::path moved = folder_.at("elsewhere");
  fs::rename(folder_.at("batches"), moved);
  std::vector<api::BatchRequest> list{{"0", "{}"}};
  EXPECT_FALSE(store_->create({}, list).change.write());
  fs::rename(moved, folder_.at("batches"));
  reopen();
  EXPECT_TRUE(store_->batches().empty());
}

TEST_F(BatchStoreTest, NumberAndBytesHaveABound) {
  EXPECT_TRUE(store_->has_room("", 1, BatchStore::kBytesMax));
  EXPECT_FALSE(store_->has_room("", 1, BatchStore::kBytesMax + 1));
  EXPECT_TRUE(store_->has_room("", BatchStore::kBatchesMax, 0));
  EXPECT_FALSE(store_->has_room("", BatchStore::kBatchesMax + 1, 0));
  copy_until_there_are(create(1), BatchStore::kBatchesMax - 1);
  EXPECT_TRUE(store_->has_room("", 1, 1));
  create(1);
  EXPECT_FALSE(store_->has_room("", 1, 0));
}

TEST_F(BatchStoreTest, AKeyMayUseHalfOfTheRoom) {
  constexpr std::uint64_t kHalf = BatchStore::kBytesMax / BatchStore::kOwnersPart;
  EXPECT_TRUE(store_->has_room("alice", 1, kHalf));
  EXPECT_FALSE(store_->has_room("alice", 1, kHalf + 1));
  const std::string id = create(1, "alice");
  const std::uint64_t bytes = store_->find(id)->bytes;
  EXPECT_TRUE(store_->has_room("alice", 1, kHalf - bytes));
  EXPECT_FALSE(store_->has_room("alice", 1, kHalf - bytes + 1));
  copy_until_there_are(id, BatchStore::kBatchesMax / BatchStore::kOwnersPart);
  EXPECT_FALSE(store_->has_room("alice", 1, 0));
  EXPECT_TRUE(store_->has_room("bob", 1, 0));
  EXPECT_TRUE(store_->has_room("", 1, 0));
}

TEST_F(BatchStoreTest, ASecondServerGetsNone) {
  const auto second = BatchStore::open(folder_.at("batches"));
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another server keeps its batches there"),
            std::string::npos);
}

TEST_F(BatchStoreTest, AFolderThatCannotBeMadeIsAnError) {
  std::ofstream(folder_.at("file")) << "x";
  EXPECT_FALSE(BatchStore::open(folder_.at("file") + "/batches"));
}

TEST_F(BatchStoreTest, LongResultsComeInPiecesWithoutTheirIndexes) {
  const std::string id = create(3);
  std::string wanted;
  for (std::uint32_t i = 0; i < 3; ++i) {
    // Around the size of a piece, so that an index lies across the border.
    const std::string text(ResultsFile::kPieceBytes - 60 + i, 'x');
    const std::string line = api::succeeded_line(std::to_string(i), "\"" + text + "\"");
    ASSERT_TRUE(store_->append(id, i, line));
    wanted += line + "\n";
  }
  EXPECT_EQ(results(id), wanted);
}

}  // namespace
}  // namespace pensieve::gateway
