#include "engine/native_marks.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <utility>

#include <fmt/core.h>

#include "engine/grammar_text.h"

namespace pensieve::engine {
namespace {

std::unexpected<Error> unknown_form() {
  return fail(Code::kInvalidArgument, "the template's form of calls is not known");
}

/// Beginnings of objects, character by character. White space may stand between JSON's own tokens.
class Heads {
 public:
  Heads() : nodes_(1) { nodes_[0].may_have_space = true; }

  /// `tokens` of JSON in order.
  void add(const std::vector<std::string>& tokens) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      for (const char c : tokens[i]) {
        auto [known, is_new] = nodes_[at].next.try_emplace(c, nodes_.size());
        at = known->second;
        if (is_new) nodes_.emplace_back();
      }
      if (i + 1 < tokens.size()) nodes_[at].may_have_space = true;
    }
    nodes_[at].is_whole = true;
  }

  /// Rules `name-0` and so on: text that begins with none of the heads.
  std::string rules(std::string_view name) const {
    std::string text;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      if (node.is_whole) continue;
      std::string others = node.may_have_space ? " \\t\\r\\n" : "";
      std::string on;
      for (const auto& [c, next] : node.next) {
        others += escaped(c);
        if (nodes_[next].is_whole) continue;
        on += fmt::format(" | {} {}-{}", grammar_literal(std::string(1, c)), name, next);
      }
      if (node.may_have_space) on += fmt::format(R"( | [ \t\r\n] {}-{})", name, i);
      text += fmt::format("{0}-{1} ::= \"\" | [^{2}] {0}-any{3}\n", name, i, others, on);
    }
    return text + fmt::format("{}-any ::= [^\\0]*\n", name);
  }

 private:
  struct Node {
    std::map<char, std::size_t> next = {};
    bool may_have_space = false;
    bool is_whole = false;
  };

  static std::string escaped(char c) {
    constexpr std::string_view kSpecial = "]\\^-[";
    return kSpecial.find(c) == std::string_view::npos ? std::string(1, c) : std::string{'\\', c};
  }

  std::vector<Node> nodes_;
};

}  // namespace

Result<NativeForm> form_of_heads(std::string_view grammar) {
  constexpr std::string_view kRole = R"((" to=functions." )";
  constexpr std::string_view kChannel = R"( | ("<|channel|>" ()";
  std::string in_roles;
  std::string in_channels;
  std::vector<GrammarRule> kept;
  for (GrammarRule& rule : grammar_rules(grammar)) {
    const std::size_t channel = rule.body.find(kChannel);
    if (rule.name == "root") continue;
    if (!rule.body.starts_with(kRole) || channel == std::string::npos) {
      kept.push_back(std::move(rule));
      continue;
    }
    in_roles += (in_roles.empty() ? "" : " | ") + rule.name + "-role";
    in_channels += (in_channels.empty() ? "" : " | ") + rule.name + "-channel";
    kept.push_back({rule.name + "-role", rule.body.substr(0, channel)});
    kept.push_back({rule.name + "-channel", rule.body.substr(channel + 3)});
  }
  if (in_roles.empty()) return unknown_form();
  std::erase_if(kept, [](const GrammarRule& rule) { return rule.name == "tool-call"; });
  kept.push_back({"zqx-role", in_roles});
  kept.push_back({"zqx-channel", in_channels});
  kept.push_back(
      {"zqx-text", R"(TagDispatch(loop_after_dispatch=false, excludes=(" to=functions.")))"});
  // The template has written the head's beginning already.
  kept.push_back({"root", R"(zqx-role | zqx-text | zqx-text zqx-channel | )"
                          R"(zqx-text "<|start|>assistant" zqx-role)"});
  return NativeForm{.grammar = grammar_text(kept), .marks = {}, .is_whole_answer = true};
}

Result<NativeForm> form_of_objects(std::string_view grammar, std::string_view prompt_end) {
  constexpr std::string_view kTool =
      R"("{" space ("\"type\"" space ":" space "\"function\"" space "," space)? "\"name\"" space)";
  std::vector<GrammarRule> rules = grammar_rules(grammar);
  const std::string begin = grammar_literal(prompt_end) + " ";
  std::size_t calls = 0;
  bool has_root = false;
  for (GrammarRule& rule : rules) {
    calls += rule.body.starts_with(kTool) ? 1 : 0;
    if (rule.name != "root" || !rule.body.starts_with(begin)) continue;
    rule.body.erase(0, begin.size());
    has_root = true;
  }
  if (!has_root || calls == 0) return unknown_form();
  return NativeForm{.grammar = grammar_text(rules), .marks = {}};
}

std::string no_object_grammar(std::string_view name, const std::vector<std::string>& tools) {
  Heads heads;
  heads.add({R"("type")", ":", R"("function")"});
  for (const std::string& tool : tools) heads.add({R"("name")", ":", '"' + tool + '"'});
  const std::string inner = fmt::format("{}-head", name);
  return fmt::format("{0} ::= [^{{]* (\"{{\" {1}-0)?\n", name, inner) + heads.rules(inner);
}

}  // namespace pensieve::engine
