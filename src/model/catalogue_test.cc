#include "model/catalogue.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "worker/testing/temp_folder.h"

namespace pensieve::model {
namespace {

class CatalogueTest : public testing::Test {
 protected:
  std::string add(const std::string& name) { return folder_.write(name, "x"); }
  std::string resolved(std::string_view model, std::string_view engine = "auto") {
    const Result<ModelFile> file = catalogue_.resolve(model, engine);
    EXPECT_TRUE(file) << file.error().message;
    return file ? file->path : "";
  }
  Error error(std::string_view model, std::string_view engine = "auto") {
    const Result<ModelFile> file = catalogue_.resolve(model, engine);
    EXPECT_FALSE(file) << file->path;
    return file ? Error{} : file.error();
  }

  worker::TempFolder folder_;
  Catalogue catalogue_{{folder_.at("first"), folder_.at("second")}};
};

TEST_F(CatalogueTest, AModelHasItsFileNameAsIdAndTheEngineOfItsKind) {
  const std::string path = add("first/SmolLM2-135M-Instruct.Q4_1.gguf");
  const Result<ModelFile> file = catalogue_.resolve("SmolLM2-135M-Instruct.Q4_1", "auto");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->id, "SmolLM2-135M-Instruct.Q4_1");
  EXPECT_EQ(file->path, path);
  EXPECT_EQ(file->engine, "llama");
  add("first/tiny.script");
  EXPECT_EQ(catalogue_.resolve("tiny", "auto")->engine, "scripted");
}

TEST_F(CatalogueTest, AnswersToPathFileNameIdAndBeginningWithoutRegardToCase) {
  const std::string path = add("second/SmolLM2-135M-Instruct.Q4_1.gguf");
  EXPECT_EQ(resolved(path), path);
  EXPECT_EQ(resolved("SmolLM2-135M-Instruct.Q4_1.gguf"), path);
  EXPECT_EQ(resolved("smollm2-135m-instruct.q4_1"), path);
  EXPECT_EQ(resolved("SmolLM2-135M-Instruct"), path);
  EXPECT_EQ(resolved("SMOLLM2"), path);
}

TEST_F(CatalogueTest, ABeginningEndsWhereAPartOfTheNameEnds) {
  add("first/gemma-2b.gguf");
  EXPECT_EQ(error("gemm").code, Code::kNotFound);
  EXPECT_EQ(error("gemma-2").code, Code::kNotFound);
  EXPECT_EQ(error("2b").code, Code::kNotFound);
  EXPECT_EQ(error("gemma-2b.gguf.more").code, Code::kNotFound);
}

TEST_F(CatalogueTest, TheBetterMatchWins) {
  const std::string exact = add("first/qwen.gguf");
  add("first/qwen.q4.gguf");
  add("first/qwen-large.gguf");
  EXPECT_EQ(resolved("qwen"), exact);
  const std::string variant = add("first/phi.q4.gguf");
  add("first/phi-mini.gguf");
  EXPECT_EQ(resolved("phi"), variant) << "the model itself before a model of another name";
}

TEST_F(CatalogueTest, AProjectorBelongsToTheModelBesideIt) {
  add("first/vlm-256m-Q8_0.gguf");
  const std::string projector = add("first/mmproj-model-f16.gguf");
  const auto of = [this](const char* model, const char* wanted = "") {
    const Result<ModelFile> file = catalogue_.resolve(model, "auto", wanted);
    return file ? file->projector : file.error().message;
  };
  EXPECT_EQ(of("vlm-256m"), projector) << "the only one beside the only model";
  EXPECT_TRUE(catalogue_.resolve("vlm-256m", "auto")->sees());
  EXPECT_EQ(of("vlm-256m", "none"), "");
  EXPECT_EQ(of("vlm-256m", "/other/mmproj.gguf"), "/other/mmproj.gguf");
  add("first/blind-1b-Q4_0.gguf");
  EXPECT_EQ(of("vlm-256m"), "") << "with two models its name has to say whose it is";
  EXPECT_FALSE(catalogue_.resolve("blind-1b", "auto")->sees());
  const std::string own = add("first/mmproj-VLM-256M-f16.gguf");
  EXPECT_EQ(of("vlm-256m"), own);
  EXPECT_EQ(of("blind-1b"), "");
  add("first/said.script");
  EXPECT_EQ(of("said", "/other/mmproj.gguf"), "") << "scripts do not see";
}

TEST_F(CatalogueTest, AProjectorIsNoModel) {
  const std::string projector = add("first/mmproj-vlm-f16.gguf");
  EXPECT_TRUE(catalogue_.list().empty());
  EXPECT_NE(error(projector).message.find("is a projector"), std::string::npos);
}

TEST_F(CatalogueTest, ANameThatFitsSeveralSaysWhich) {
  add("first/qwen.q4.gguf");
  add("second/qwen.q8.gguf");
  const Error ambiguous = error("qwen");
  EXPECT_EQ(ambiguous.code, Code::kInvalidArgument);
  EXPECT_EQ(ambiguous.message, "\"qwen\" may be any of qwen.q4, qwen.q8; say which");
}

TEST_F(CatalogueTest, AnEarlierFolderHidesTheSameNameInALaterOne) {
  add("second/same.gguf");
  const std::string first = add("first/same.gguf");
  EXPECT_EQ(resolved("same"), first);
}

TEST_F(CatalogueTest, AMissingModelIsToldWithTheFoldersAndWhatIsThere) {
  EXPECT_NE(error("none").message.find("hold no model"), std::string::npos);
  add("first/b.gguf");
  add("second/a.script");
  add("second/notes.txt");
  const Error missing = error("none");
  EXPECT_EQ(missing.code, Code::kNotFound);
  EXPECT_EQ(missing.message, "there is no model \"none\" in " + folder_.at("first") + ", " +
                                 folder_.at("second") + "; there is a, b");
}

TEST_F(CatalogueTest, AModelThatWasJustDownloadedIsFound) {
  EXPECT_EQ(error("new").code, Code::kNotFound);
  const std::string path = add("first/new.gguf");
  EXPECT_EQ(resolved("new"), path);
}

TEST_F(CatalogueTest, AFileThatIsNoModelIsInvalid) {
  const std::string path = add("first/readme.txt");
  EXPECT_EQ(error(path).code, Code::kInvalidArgument);
  EXPECT_EQ(error(path).message, path + " is neither a .gguf nor a .script file");
}

TEST_F(CatalogueTest, AnMlxFolderIsRecognisedAndRefusedWithTheReason) {
  add("second/phi-mlx/config.json");
  EXPECT_EQ(error("phi-mlx").code, Code::kNotFound) << "only with weights";
  add("second/phi-mlx/model.safetensors");
  for (const std::string& name : {std::string("phi-mlx"), folder_.at("second/phi-mlx")}) {
    const Error refused = error(name);
    EXPECT_EQ(refused.code, Code::kInvalidArgument);
    EXPECT_NE(refused.message.find("is an MLX model"), std::string::npos) << refused.message;
  }
}

TEST_F(CatalogueTest, AnEngineThatDoesNotReadTheFileIsInvalid) {
  const std::string path = add("first/tiny.script");
  EXPECT_EQ(resolved("tiny", "scripted"), path);
  const Error refused = error("tiny", "llama");
  EXPECT_EQ(refused.code, Code::kInvalidArgument);
  EXPECT_EQ(refused.message, "the engine \"llama\" does not read tiny.script");
}

TEST_F(CatalogueTest, ListsAllModelsById) {
  add("second/a.gguf");
  add("first/c.GGUF");
  add("first/b.script");
  add("first/notes.txt");
  add("first/deeper/d.gguf");
  std::vector<std::string> ids;
  for (const ModelFile& file : catalogue_.list()) ids.push_back(file.id);
  EXPECT_EQ(ids, (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(CatalogueTest, FoldersThatAreNotThereHoldNothing) {
  EXPECT_TRUE(Catalogue({folder_.at("nowhere")}).list().empty());
  EXPECT_TRUE(Catalogue({}).list().empty());
  EXPECT_EQ(Catalogue({}).resolve("any", "auto").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace pensieve::model
