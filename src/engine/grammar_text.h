// Texts of grammars in the notation that llama.cpp (GBNF) and xgrammar (EBNF) share. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::engine {

/// A part of a rule's body, as it stands there.
struct GrammarPiece {
  enum class Kind : std::uint8_t {
    kName,     // Of a rule.
    kLiteral,  // "text", with its quotation marks and escapes.
    kOther,    // Classes of characters, operators, counts, spaces.
  };
  Kind kind;
  std::string_view text;

  bool operator==(const GrammarPiece&) const = default;
};

/// The pieces of `body`, which must outlive them. Together they are all of it.
std::vector<GrammarPiece> grammar_pieces(std::string_view body);

struct GrammarRule {
  std::string name;
  std::string body;

  bool operator==(const GrammarRule&) const = default;
};

/// The rules of `grammar`, one in each line: `name ::= body`. Other lines are left out.
std::vector<GrammarRule> grammar_rules(std::string_view grammar);

/// Writes rules, so that both libraries read them: an alternative that is empty in front becomes
/// an empty literal, which xgrammar needs.
std::string grammar_text(const std::vector<GrammarRule>& rules);

/// `grammar` with `prefix` in front of the names of its own rules.
std::string with_prefix(std::string_view grammar, std::string_view prefix);

/// `text` as a literal.
std::string grammar_literal(std::string_view text);

/// The text that `literal` stands for; escapes other than of quotation marks, backslashes and
/// white space stay as they are.
std::string literal_text(std::string_view literal);

}  // namespace pensieve::engine
