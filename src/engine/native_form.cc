#include "engine/native_form.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "engine/grammar_text.h"
#include "engine/native_marks.h"
#include "engine/structural_tag.h"
#include "engine/tool_text.h"

namespace pensieve::engine {
namespace {

using Kind = TaggedArgument::Kind;

// What xgrammar's own grammar of strings says of what comes behind them.
constexpr std::string_view kStringAhead = R"( (=([ \n\r\t]* [,}\]:])))";

bool ends_a_choice(std::string_view rest) {
  const std::size_t at = rest.find_first_not_of(' ');
  return at == std::string_view::npos || rest[at] == '|' || rest[at] == ')';
}

/// Rules that stand for a string and perhaps for what closes it.
bool is_text_rule(std::string_view name) {
  return name.starts_with("ac-") || name.starts_with("until-") || name.ends_with("-arg-string");
}

/// The literal behind the first name that ends in "-schema".
std::string literal_behind_value(std::string_view body) {
  bool is_behind = false;
  for (const GrammarPiece& piece : grammar_pieces(body)) {
    if (piece.kind == GrammarPiece::Kind::kLiteral && is_behind) return literal_text(piece.text);
    if (piece.kind != GrammarPiece::Kind::kName) continue;
    if (is_behind) return {};
    is_behind = piece.text.ends_with("-schema");
  }
  return {};
}

/// Puts the calls of a request into a form for stand-ins.
class Writer {
 public:
  Writer(const NativeArguments& arguments, const std::vector<NativeCall>& calls,
         const ValueGrammars& values)
      : arguments_(arguments), calls_(calls), values_(values) {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      names_[tool_stand_in(i)] = calls[i].tool;
      for (std::size_t j = 0; j < calls[i].arguments.size(); ++j) {
        // Names of arguments belong to one tool; a literal with them stands in its rules.
        arguments_of_[tool_stand_in(i)][argument_stand_in(j)] = &calls[i].arguments[j];
      }
    }
  }

  Result<std::string> written(const std::string& grammar) {
    std::vector<GrammarRule> rules = grammar_rules(grammar);
    for (GrammarRule& rule : rules) {
      if (std::optional<std::string> value = value_rule(rule.name)) {
        rule.body = *std::move(value);
      } else {
        rule.body = with_names(rule);
      }
    }
    for (GrammarRule& rule : rules) make_readable(rule.body);
    if (replaced_ != wanted()) {
      return fail(Code::kInvalidArgument, "the template's form of calls is not known");
    }
    return grammar_text(rules) + value_rules_;
  }

  std::string with_tool_names(std::string text) const {
    const std::size_t length = tool_stand_in(0).size();
    std::size_t done = 0;
    for (std::size_t at = text.find(kToolStandIn); at != std::string::npos;
         at = text.find(kToolStandIn, done)) {
      const auto known = names_.find(std::string_view(text).substr(at, length));
      done = at + (known == names_.end() ? length : known->second.size());
      if (known != names_.end()) text.replace(at, length, known->second);
    }
    return text;
  }

 private:
  using Arguments = std::map<std::string, const TaggedArgument*, std::less<>>;  // By stand-in.

  /// Values that have a rule of their own in the form.
  std::size_t wanted() const {
    std::size_t count = 0;
    for (const NativeCall& call : calls_) {
      if (arguments_.form == ArgumentsForm::kObject) ++count;
      for (const TaggedArgument& argument : call.arguments) {
        count += argument.kind == Kind::kAnyText ? 0 : 1;
      }
    }
    return count;
  }

  /// What llama-common's grammars allow and its parsers cannot read: line breaks and escaped
  /// spaces in strings of JSON, spaces between the last argument and the mark behind it.
  void make_readable(std::string& body) const {
    const auto replace = [&body](std::string_view from, std::string_view to) {
      for (std::size_t at = body.find(from); at != std::string::npos;
           at = body.find(from, at + to.size())) {
        body.replace(at, from.size(), to);
      }
    };
    replace(R"(["\\/ bfnrt])", R"(["\\/bfnrt])");
    replace(R"([^"\\])", R"([^"\\\x00-\x1F])");
    if (arguments_.form == ArgumentsForm::kTagged) replace(R"() space "</)", R"() "</)");
  }

  /// Adds the rules of a value; gives the name of the first.
  std::string add_value(const std::string& grammar) {
    const std::string prefix = fmt::format("zqxs{}-", replaced_++);
    value_rules_ += with_prefix(grammar, prefix);
    return prefix + "root";
  }

  /// The body of rule `name` where that is the value of a stand-in.
  std::optional<std::string> value_rule(std::string_view name) {
    constexpr std::string_view kEnd = "-schema";
    if (!name.ends_with(kEnd)) return std::nullopt;
    name.remove_suffix(kEnd.size());
    const std::size_t at = name.find(kToolStandIn);
    const std::size_t length = tool_stand_in(0).size();
    if (at == std::string_view::npos || name.size() < at + length) return std::nullopt;
    const auto tool = names_.find(name.substr(at, length));
    if (tool == names_.end()) return std::nullopt;
    const auto i = static_cast<std::size_t>(std::distance(names_.begin(), tool));
    if (arguments_.form == ArgumentsForm::kObject) {
      if (name.size() != at + length) return std::nullopt;
      return add_value(values_.json(calls_[i], calls_[i].schema));
    }
    const Arguments& arguments = arguments_of_[tool->first];
    const auto argument = arguments.find(name.substr(name.size() - length));
    if (argument == arguments.end() || argument->second->kind != Kind::kJson) return std::nullopt;
    std::string grammar = values_.json(calls_[i], argument->second->schema);
    // xgrammar expects that behind a string an object or a list goes on; here it is a mark.
    for (std::size_t found = grammar.find(kStringAhead); found != std::string::npos;
         found = grammar.find(kStringAhead, found)) {
      grammar.erase(found, kStringAhead.size());
    }
    return add_value(grammar);
  }

  /// The body of `rule` with the names that the request has, and its strings that have limits.
  std::string with_names(const GrammarRule& rule) {
    std::string out;
    const Arguments* arguments = arguments_in(rule.name);
    const TaggedArgument* open = nullptr;  // A string with limits whose value comes next.
    const std::vector<GrammarPiece> pieces = grammar_pieces(rule.body);
    for (const GrammarPiece& piece : pieces) {
      const std::size_t end =
          static_cast<std::size_t>(piece.text.data() - rule.body.data()) + piece.text.size();
      if (piece.kind == GrammarPiece::Kind::kLiteral) {
        const std::string text = literal_text(piece.text);
        if (const auto tool = arguments_of_.find(std::string_view(text));
            tool != arguments_of_.end()) {
          arguments = &tool->second;
        }
        if (arguments != nullptr) {
          if (const auto known = arguments->find(text); known != arguments->end()) {
            open = known->second->kind == Kind::kText ? known->second : nullptr;
            out += grammar_literal(known->second->name);
            continue;
          }
        }
        out += grammar_literal(with_tool_names(text));
      } else if (piece.kind == GrammarPiece::Kind::kName && open && is_text_rule(piece.text)) {
        out += text_value(*std::exchange(open, nullptr), piece.text,
                          std::string_view(rule.body).substr(end));
      } else {
        out += piece.text;
      }
    }
    return out;
  }

  const Arguments* arguments_in(std::string_view rule) const {
    const std::size_t at = rule.find(kToolStandIn);
    if (at == std::string_view::npos) return nullptr;
    const auto known = arguments_of_.find(rule.substr(at, tool_stand_in(0).size()));
    return known == arguments_of_.end() ? nullptr : &known->second;
  }

  /// In the place of rule `name`, which stands for the value and, but for "until-", its end.
  std::string text_value(const TaggedArgument& argument, std::string_view name,
                         std::string_view rest) {
    const bool has_end = !name.starts_with("until-");
    if (has_end && !ends_a_choice(rest)) return std::string(name);
    const std::string value = add_value(values_.text(argument.schema, arguments_.value_end));
    return has_end ? value + " " + grammar_literal(arguments_.value_end) : value;
  }

  const NativeArguments& arguments_;
  const std::vector<NativeCall>& calls_;
  const ValueGrammars& values_;
  std::map<std::string, std::string, std::less<>> names_;  // By stand-in: in order of calls_.
  std::map<std::string, Arguments, std::less<>> arguments_of_;
  std::string value_rules_;
  std::size_t replaced_ = 0;
};

NativeCall probe_call() {
  return {"", "", {{"", true, Kind::kText, ""}, {"", true, Kind::kJson, ""}}};
}

}  // namespace

std::vector<Tool> probe_tools() {
  return stand_ins({probe_call()});
}

NativeArguments native_arguments(const NativeForm& form) {
  const std::string tool = tool_stand_in(0);
  NativeArguments arguments;
  std::string behind_value;
  bool has_object = false;
  bool has_arguments = false;  // With rules of their own, so that it is known which must come.
  for (const GrammarRule& rule : grammar_rules(form.grammar)) {
    has_arguments = has_arguments || rule.name.ends_with(argument_stand_in(0));
    has_object = has_object || rule.name.ends_with(tool + "-schema");
    if (rule.name.find(tool) == std::string::npos || rule.name.ends_with("-kv")) continue;
    if (behind_value.empty()) behind_value = literal_behind_value(rule.body);
  }
  if (has_object) {
    arguments.form = ArgumentsForm::kObject;
  } else if (!behind_value.empty() && has_arguments) {
    arguments = {ArgumentsForm::kTagged, behind_value};
    const ValueGrammars any{[](const NativeCall&, const std::string&) { return "root ::= \"\""; },
                            [](const std::string&, std::string_view) { return "root ::= \"\""; }};
    arguments.limits_text = with_calls(form, arguments, {probe_call()}, any).has_value();
  }
  return arguments;
}

Result<NativeForm> with_calls(const NativeForm& form, const NativeArguments& arguments,
                              const std::vector<NativeCall>& calls, const ValueGrammars& values) {
  Writer writer(arguments, calls, values);
  NativeForm written{.grammar = {}, .marks = {}, .is_whole_answer = form.is_whole_answer};
  Result<std::string> grammar = writer.written(form.grammar);
  if (!grammar) return std::unexpected(grammar.error());
  written.grammar = *std::move(grammar);
  for (const NativeCall& call : calls) written.tools.push_back(call.tool);
  for (const std::string& mark : form.marks) {
    std::string named = writer.with_tool_names(mark);
    const auto& known = written.marks;
    if (std::find(known.begin(), known.end(), named) == known.end()) {
      written.marks.push_back(std::move(named));
    }
  }
  return written;
}

std::string native_tag(const NativeForm& form) {
  if (form.is_whole_answer) return tag_of_format(grammar_format(form.grammar));
  if (form.marks.empty()) {
    return tag_of_format(grammar_format("root ::= zqx-text | zqx-root\n" +
                                        no_object_grammar("zqx-text", form.tools) +
                                        with_prefix(form.grammar, "zqx-")));
  }
  std::string marks;
  for (const std::string& mark : form.marks) {
    if (!marks.empty()) marks += ',';
    marks += json_string(mark);
  }
  const std::string text = fmt::format(R"({{"type":"any_text","excludes":[{}]}})", marks);
  return tag_of_format(
      fmt::format(R"({{"type":"or","elements":[{0},{{"type":"sequence","elements":[{0},{1}]}}]}})",
                  text, grammar_format(form.grammar)));
}

}  // namespace pensieve::engine
