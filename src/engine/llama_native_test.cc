// Calls in the form of every template that comes with llama.cpp: whatever a grammar of ours lets
// through is read as a call of the tool, with arguments that keep its schema.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <llama.h>
#include <boost/json.hpp>

#include "engine/llama_chat.h"
#include "engine/llama_native.h"
#include "engine/llama_template.h"
#include "engine/native_form.h"
#include "engine/testing/llama_vocabulary.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;
using Kind = AnswerPiece::Kind;

class LlamaNativeTest : public VocabularyTest {
 protected:
  static std::vector<std::filesystem::path> templates() {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(PENSIEVE_TEST_TEMPLATES)) {
      if (entry.path().extension() == ".jinja") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
  }
  static std::string source_of(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  /// A tool with what schemas of agents have.
  static Prompt with_tools() {
    Prompt prompt{.messages = {{Role::kUser, "Find it."}}};
    prompt.tools = {{"find_it", "Finds", R"({"type":"object","properties":{
           "pattern":{"type":"string"},
           "mode":{"type":"string","enum":["files","lines <a>","count"]},
           "depth":{"type":"integer","minimum":1,"maximum":40},
           "day":{"type":"string","pattern":"^[0-9]{4}-[01][0-9]$"},
           "code":{"type":"string","minLength":2,"maxLength":4},
           "options":{"type":"object","properties":{"deep":{"type":"boolean"}},
             "required":["deep"],"additionalProperties":false}},
           "required":["pattern","mode","depth","day","code","options"]})"},
                    {"stop", "Stops", R"({"type":"object","properties":{}})"}};
    return prompt;
  }

  struct Said {
    std::string text;
    bool ended = false;
  };

  static std::vector<Token> allowed_by(ShapeFollower& follower) {
    const auto count =
        static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_)));
    std::vector<float> logits(count, 1.0F);
    follower.mask(logits);
    std::vector<Token> allowed;
    for (std::size_t token = 0; token < count; ++token) {
      if (std::isfinite(logits[token])) allowed.push_back(static_cast<Token>(token));
    }
    return allowed;
  }

  /// Of `allowed` those that bring an answer to its end: most tokens are letters, and a string of
  /// any length ends nothing.
  static std::vector<Token> ending(const std::vector<Token>& allowed) {
    std::vector<Token> tokens;
    for (const Token token : allowed) {
      std::string piece;
      append_piece(llama_model_get_vocab(model_), token, false, piece);
      if (piece.find_first_of("\"}]<>/\n|") != std::string::npos && piece.size() < 3) {
        tokens.push_back(token);
      }
    }
    return tokens.empty() ? allowed : tokens;
  }

  /// Closes thoughts that must be closed, says `mark`, then what `shape` allows, by chance, and now
  /// and then `value_end`, until it may end.
  static Said say(std::shared_ptr<const AnswerShape> shape, const std::string& mark,
                  const std::string& value_end, std::mt19937& chance) {
    constexpr int kTokensMax = 500;
    const llama_vocab* const vocab = llama_model_get_vocab(model_);
    const auto follower = follow(std::move(shape), vocab);
    Said said;
    const auto say_token = [&](Token token) {
      append_piece(vocab, token, true, said.text);
      EXPECT_TRUE(follower->accept(token));
    };
    std::vector<Token> allowed = allowed_by(*follower);
    for (; allowed.size() == 1; allowed = allowed_by(*follower)) say_token(allowed[0]);
    for (const Token token : tokens_as_written(vocab, mark)) say_token(token);
    for (int i = 0; i < kTokensMax; ++i) {
      allowed = allowed_by(*follower);
      if (allowed.empty()) return said;
      said.ended =
          std::find(allowed.begin(), allowed.end(), llama_vocab_eos(vocab)) != allowed.end();
      if (said.ended) return said;
      if (chance() % 8 == 0) {  // Chance alone would never close a string that stands as it is.
        for (const Token token : tokens_as_written(vocab, value_end)) {
          if (!follower->accept(token)) break;
          append_piece(vocab, token, true, said.text);
        }
        continue;
      }
      const std::vector<Token> choice = chance() % 8 != 0 ? ending(allowed) : allowed;
      say_token(choice[chance() % choice.size()]);
    }
    return said;
  }

  /// Of an answer with a call of find_it.
  static std::string beginning(const NativeForm& form) {
    if (form.is_whole_answer) return "<|channel|>commentary to=functions.find_it";
    if (form.marks.empty()) return R"({"name": "find_it")";
    return form.marks.front();
  }

  /// Null where llama.cpp keeps calls, or nobody.
  static std::shared_ptr<const TokenGrammar> grammar_in(const Prepared& prepared) {
    std::shared_ptr<const AnswerShape> shape = prepared.shape;
    if (auto thinking = std::dynamic_pointer_cast<const ThinkingShape>(shape)) {
      shape = thinking->answer;
    }
    return std::dynamic_pointer_cast<const TokenGrammar>(shape);
  }

  /// The calls that are read in `text`, as name and input; "cut" where one does not end.
  static std::vector<std::pair<std::string, std::string>> calls_in(AnswerParser& parser,
                                                                   const std::string& text) {
    std::vector<AnswerPiece> pieces;
    parser.push(text, pieces);
    parser.finish(pieces);
    std::vector<std::pair<std::string, std::string>> calls;
    bool is_open = false;
    for (const AnswerPiece& piece : pieces) {
      if (piece.kind == Kind::kCallStart) calls.push_back({piece.text, ""});
      if (piece.kind == Kind::kCallInput) calls.back().second += piece.text;
      is_open = piece.kind != Kind::kCallEnd && (is_open || piece.kind == Kind::kCallStart);
    }
    if (is_open) calls.back().second = "cut";
    return calls;
  }

  static void expect_kept(const std::string& input) {
    boost::system::error_code error;
    const json::value value = json::parse(input, error);
    ASSERT_FALSE(error) << input;
    const json::object& object = value.as_object();
    for (const char* name : {"pattern", "mode", "depth", "day", "code", "options"}) {
      ASSERT_TRUE(object.contains(name)) << name << " in " << input;
    }
    EXPECT_TRUE(object.at("pattern").is_string()) << input;
    const std::set<std::string> modes = {"files", "lines <a>", "count"};
    EXPECT_TRUE(modes.contains(json::value_to<std::string>(object.at("mode")))) << input;
    ASSERT_TRUE(object.at("depth").is_int64()) << input;
    EXPECT_GE(object.at("depth").as_int64(), 1) << input;
    EXPECT_LE(object.at("depth").as_int64(), 40) << input;
    const std::string day = json::value_to<std::string>(object.at("day"));
    EXPECT_EQ(day.size(), 7U) << input;
    EXPECT_EQ(day[4], '-') << input;
    EXPECT_TRUE(object.at("options").as_object().at("deep").is_bool()) << input;
  }
};

TEST_F(LlamaNativeTest, WhateverIsLetThroughIsACallThatKeepsItsSchema) {
  std::size_t kept = 0;
  for (const auto& path : templates()) {
    SCOPED_TRACE(path.stem().string());
    const LlamaTemplate own(model_, source_of(path));
    if (own.call_form() != CallForm::kNative) continue;
    if (own.native_arguments().form == ArgumentsForm::kUnknown) continue;
    const auto chat = LlamaChat::create(model_, source_of(path));
    ASSERT_TRUE(chat);
    const Prompt prompt = with_tools();
    const Result<NativeForm> form = own.native_form(prompt, prompt.tools);
    ASSERT_TRUE(form);
    std::mt19937 chance(7);  // NOLINT(cert-msc51-cpp): the same each time.
    std::size_t whole = 0;
    for (int i = 0; i < 4; ++i) {
      const Result<Prepared> again = (*chat)->prepare(prompt, 8192);
      ASSERT_TRUE(again);
      ASSERT_NE(grammar_in(*again), nullptr);
      // Llama-common does not see where this template's thoughts begin: they are not closed for us.
      const bool has_open_thoughts = path.stem() == "Apriel-1.6-15b-Thinker-fixed";
      const std::string end = has_open_thoughts ? own.thinking().end + "\n" : "";
      const Said said =
          say(again->shape, end + beginning(*form), own.native_arguments().value_end, chance);
      if (!said.ended) continue;
      ++whole;
      const auto calls = calls_in(*again->parser, said.text);
      EXPECT_FALSE(calls.empty()) << said.text;
      for (const auto& [name, input] : calls) {
        EXPECT_TRUE(name == "find_it" || name == "stop") << said.text;
        if (name == "find_it") expect_kept(input);
      }
    }
    EXPECT_GT(whole, 0U);
    ++kept;
  }
  EXPECT_GT(kept, 30U);
}

TEST_F(LlamaNativeTest, TheFormsThatOnlyLlamaCommonKnowsAreThese) {
  std::set<std::string> others;
  for (const auto& path : templates()) {
    if (LlamaTemplate(model_, source_of(path)).call_form() != CallForm::kNative) continue;
    const auto chat = LlamaChat::create(model_, source_of(path));
    ASSERT_TRUE(chat);
    const Result<Prepared> prepared = (*chat)->prepare(with_tools(), 8192);
    ASSERT_TRUE(prepared);
    if (!grammar_in(*prepared)) others.insert(path.stem().string());
  }
  // docs/design/answers.md names them.
  EXPECT_EQ(others, (std::set<std::string>{
                        "Kimi-K3", "LFM2.5-8B-A1B", "MiniMax-M3", "google-gemma-4-31B-it",
                        "google-gemma-4-31B-it-interleaved", "meetkai-functionary-medium-v3.2",
                        "muse-glimmer", "openbmb-MiniCPM5-1B"}));
}

}  // namespace
}  // namespace pensieve::engine
