#include "engine/grammar_text.h"

#include <cstddef>
#include <set>

namespace pensieve::engine {
namespace {

constexpr std::string_view kDefines = " ::= ";

bool begins_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_in_name(char c) {
  return begins_name(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

/// The length of what stands in front of the next `end` that is not escaped, that included.
std::size_t length_until(std::string_view text, char end) {
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == end) {
      return i + 1;
    }
  }
  return text.size();
}

std::size_t name_length(std::string_view text) {
  std::size_t length = 1;
  while (length < text.size() && is_in_name(text[length])) ++length;
  return length;
}

/// What is neither a name nor a literal, from the front on; a class of characters at a time.
std::size_t other_length(std::string_view text) {
  if (text[0] == '[') return length_until(text, ']');
  std::size_t length = 1;
  while (length < text.size() && !begins_name(text[length]) && text[length] != '"' &&
         text[length] != '[') {
    ++length;
  }
  return length;
}

}  // namespace

std::vector<GrammarPiece> grammar_pieces(std::string_view body) {
  using Kind = GrammarPiece::Kind;
  std::vector<GrammarPiece> pieces;
  while (!body.empty()) {
    Kind kind = Kind::kOther;
    std::size_t length = 0;
    if (body[0] == '"') {
      kind = Kind::kLiteral;
      length = length_until(body, '"');
    } else if (begins_name(body[0])) {
      kind = Kind::kName;
      length = name_length(body);
    } else {
      length = other_length(body);
    }
    pieces.push_back({kind, body.substr(0, length)});
    body.remove_prefix(length);
  }
  return pieces;
}

std::vector<GrammarRule> grammar_rules(std::string_view grammar) {
  std::vector<GrammarRule> rules;
  while (!grammar.empty()) {
    const std::size_t end = grammar.find('\n');
    const std::string_view line = grammar.substr(0, end);
    grammar.remove_prefix(end == std::string_view::npos ? grammar.size() : end + 1);
    const std::size_t defines = line.find(kDefines);
    if (defines == std::string_view::npos) continue;
    rules.push_back({std::string(line.substr(0, defines)),
                     std::string(line.substr(defines + kDefines.size()))});
  }
  return rules;
}

std::string grammar_text(const std::vector<GrammarRule>& rules) {
  std::string text;
  for (const GrammarRule& rule : rules) {
    text += rule.name;
    text += kDefines;
    if (rule.body.empty() || rule.body.starts_with('|')) text += "\"\" ";
    text += rule.body;
    text += '\n';
  }
  return text;
}

std::string with_prefix(std::string_view grammar, std::string_view prefix) {
  std::vector<GrammarRule> rules = grammar_rules(grammar);
  std::set<std::string, std::less<>> own;
  for (const GrammarRule& rule : rules) own.insert(rule.name);
  for (GrammarRule& rule : rules) {
    std::string body;
    for (const GrammarPiece& piece : grammar_pieces(rule.body)) {
      if (piece.kind == GrammarPiece::Kind::kName && own.contains(piece.text)) body += prefix;
      body += piece.text;
    }
    rule.body = std::move(body);
    rule.name.insert(0, prefix);
  }
  return grammar_text(rules);
}

std::string grammar_literal(std::string_view text) {
  std::string literal = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        literal += "\\\"";
        break;
      case '\\':
        literal += "\\\\";
        break;
      case '\n':
        literal += "\\n";
        break;
      case '\r':
        literal += "\\r";
        break;
      case '\t':
        literal += "\\t";
        break;
      default:
        literal += c;
    }
  }
  literal += '"';
  return literal;
}

std::string literal_text(std::string_view literal) {
  std::string text;
  for (std::size_t i = 1; i + 1 < literal.size(); ++i) {
    if (literal[i] != '\\') {
      text += literal[i];
      continue;
    }
    ++i;
    switch (literal[i]) {
      case 'n':
        text += '\n';
        break;
      case 'r':
        text += '\r';
        break;
      case 't':
        text += '\t';
        break;
      case '"':
      case '\\':
        text += literal[i];
        break;
      default:
        text += '\\';
        text += literal[i];
    }
  }
  return text;
}

}  // namespace pensieve::engine
