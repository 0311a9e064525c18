#include "engine/script.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "engine/tool_text.h"

namespace pensieve::engine {
namespace {

constexpr std::size_t kPieceBytesMax = 64;  // A choice: longer than words, shorter than abuse.
constexpr std::string_view kScriptMark = "script:";
constexpr std::string_view kThen = "then";
constexpr std::string_view kSpaces = " \t\r\n\v\f";
constexpr std::uint64_t kEndless = UINT64_MAX;

bool is_space(char c) {
  return kSpaces.find(c) != std::string_view::npos;
}

/// Takes the first word off `text`, which is left trimmed.
std::string_view take_word(std::string_view& text) {
  text = trimmed(text, kSpaces);
  const std::string_view word = text.substr(0, text.find_first_of(kSpaces));
  text = trimmed(text.substr(word.size()), kSpaces);
  return word;
}

std::optional<std::uint32_t> parse_number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::string> parse_hex(std::string_view text) {
  if (text.empty() || text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    const char* const from = text.data() + i;
    const auto [end, error] = std::from_chars(from, from + 2, value, 16);
    if (error != std::errc() || end != from + 2) return std::nullopt;
    bytes.push_back(static_cast<char>(value));
  }
  return bytes;
}

std::vector<std::string> owned_pieces(std::string_view text) {
  std::vector<std::string> pieces;
  for (std::string_view piece : split_pieces(text)) pieces.emplace_back(piece);
  return pieces;
}

struct DeedName {
  std::string_view verb;
  Deed deed;
  bool takes_amount;
};

constexpr std::array<DeedName, 10> kDeedNames = {{
    {"grow", Deed::kGrow, true},
    {"leak", Deed::kLeak, true},
    {"abort", Deed::kAbort, false},
    {"segv", Deed::kSegv, false},
    {"exit", Deed::kExit, true},
    {"hang", Deed::kHang, false},
    {"slow", Deed::kSlow, true},
    {"oom", Deed::kOom, false},
    {"badalloc", Deed::kBadAlloc, false},
    {"fail", Deed::kFail, false},
}};

/// Clients put reminders before what the user typed: the script may begin at any line.
std::size_t start_of_script(std::string_view text) {
  if (text.starts_with(kScriptMark)) return 0;
  const std::size_t line = text.find(std::string("\n") += kScriptMark);
  return line == std::string_view::npos ? line : line + 1;
}

}  // namespace

std::string thoughts_before(std::string_view thinking, std::string_view text) {
  if (thinking.empty()) return std::string(text);
  return fmt::format("{}\n{}\n{} {}", kThinkingBegin, thinking, kThinkingEnd, text);
}

std::vector<std::string_view> split_pieces(std::string_view text) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    std::size_t end = 0;
    while (end < text.size() && end < kPieceBytesMax && is_space(text[end])) ++end;
    // The cut of a long word counts from the word, not from the space before it: a word is cut
    // alike at the start of an answer, where it has no space, and in the middle.
    const std::size_t word_end = std::min(text.size(), end + kPieceBytesMax);
    while (end < word_end && !is_space(text[end])) ++end;
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return pieces;
}

Script::Statement Script::text_statement(std::string_view text) {
  Statement statement;
  statement.pieces = owned_pieces(std::string(" ") += text);
  return statement;
}

std::optional<Script::Statement> Script::parse_text(std::string_view verb, std::string_view rest) {
  Statement statement;
  if (verb == "say") {
    std::string words;
    while (!rest.empty()) (words += ' ') += take_word(rest);
    statement.pieces = owned_pieces(words);
    return statement;
  }
  if (verb == "think") {
    statement.pieces.emplace_back(kThinkingBegin);
    while (!rest.empty()) {
      const char space = statement.pieces.size() == 1 ? '\n' : ' ';
      statement.pieces.push_back(space + std::string(take_word(rest)));
    }
    statement.pieces.push_back("\n" + std::string(kThinkingEnd));
    statement.is_raw = statement.is_thinking = true;
    return statement;
  }
  if (verb == "call") {
    const std::string name(take_word(rest));
    if (name.empty() || !rest.starts_with('{')) return std::nullopt;
    statement.pieces = owned_pieces(call_text({"", name, std::string(rest)}));
    statement.is_raw = true;
    return statement;
  }
  if (verb == "bytes") {
    const std::optional<std::string> bytes = parse_hex(rest);
    if (!bytes) return std::nullopt;
    statement.pieces.push_back(*bytes);
    statement.is_raw = true;
    return statement;
  }
  if (verb == "repeat") {
    const std::optional<std::uint32_t> count = parse_number(take_word(rest));
    if (!count) return std::nullopt;
    statement.repeats = *count;
  } else if (verb == "endless") {
    statement.repeats = kEndless;
  } else {
    return std::nullopt;
  }
  const std::string_view word = take_word(rest);
  if (word.empty() || !rest.empty()) return std::nullopt;
  statement.pieces = owned_pieces(std::string(" ") += word);
  return statement;
}

std::optional<Action> Script::parse_action(std::string_view verb, std::string_view rest) {
  const auto name = std::find_if(kDeedNames.begin(), kDeedNames.end(),
                                 [&](const DeedName& n) { return n.verb == verb; });
  if (name == kDeedNames.end()) return std::nullopt;
  Action action;
  action.deed = name->deed;
  if (!name->takes_amount) return rest.empty() ? std::optional(action) : std::nullopt;
  const std::optional<std::uint32_t> amount = parse_number(rest);
  if (!amount) return std::nullopt;
  action.amount = *amount;
  return action;
}

std::optional<Script::Statement> Script::parse_try(std::string_view rest) {
  const std::string_view verb = take_word(rest);
  const std::string_view target = take_word(rest);
  if (std::optional<Attempt> attempt = parse_attempt(verb, target); attempt && rest.empty()) {
    Statement statement;
    statement.kind = Kind::kAttempt;
    statement.attempt = *std::move(attempt);
    return statement;
  }
  return std::nullopt;
}

Script::Statement Script::parse_statement(std::string_view text) {
  std::string_view rest = text;
  std::string_view verb = take_word(rest);
  if (std::optional<Statement> said = parse_text(verb, rest)) return *std::move(said);

  Statement statement;
  if (verb == "delay") {
    if (const std::optional<std::uint32_t> ms = parse_number(rest)) {
      statement.kind = Kind::kDelay;
      statement.delay = std::chrono::milliseconds(*ms);
      return statement;
    }
  }
  if (verb == "try") {
    if (std::optional<Statement> tried = parse_try(rest)) return *std::move(tried);
  }
  std::string once_path;
  if (verb == "once") {
    once_path = take_word(rest);
    verb = take_word(rest);
  }
  if (std::optional<Action> action = parse_action(verb, rest)) {
    statement.kind = Kind::kAction;
    statement.action = *std::move(action);
    statement.action.once_path = std::move(once_path);
    return statement;
  }
  return text_statement(std::string("unknown statement: ") += text);
}

Script Script::parse(std::string_view user_text, std::size_t turn) {
  Script script;
  const std::size_t mark = start_of_script(user_text);
  if (mark == std::string_view::npos) {
    script.statements_.push_back(text_statement(std::string("You said: ") += user_text));
    return script;
  }
  std::string_view rest = user_text.substr(mark + kScriptMark.size());
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find_first_of(";\n"), rest.size());
    const std::string_view statement = trimmed(rest.substr(0, end), kSpaces);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (statement == kThen) {
      if (turn == 0) break;
      --turn;
      script.statements_.clear();
    } else if (!statement.empty()) {
      script.statements_.push_back(parse_statement(statement));
    }
  }
  return script;
}

void Script::limit_thinking(std::size_t words) {
  for (Statement& statement : statements_) {
    if (!statement.is_thinking || statement.pieces.size() <= words + 2) continue;
    const auto first = statement.pieces.begin() + 1;
    statement.pieces.erase(first + static_cast<std::ptrdiff_t>(words), statement.pieces.end() - 1);
  }
}

Moment Script::at(std::uint64_t position) const {
  Moment moment;
  std::uint64_t left = position;  // Tokens of the answer before `position`, not yet passed.
  for (const Statement& statement : statements_) {
    if (statement.kind == Kind::kDelay) {
      moment.delay = statement.delay;
    } else if (statement.kind == Kind::kAction) {
      if (left == 0) moment.actions.push_back(statement.action);
    } else if (statement.kind == Kind::kAttempt) {
      if (left > 0) {
        --left;
        continue;
      }
      moment.attempt = statement.attempt;
      moment.piece = position == 0 ? "" : " ";
      return moment;
    } else if (!statement.pieces.empty()) {
      const std::uint64_t count = statement.pieces.size();
      if (statement.repeats == kEndless || left / count < statement.repeats) {
        std::string piece = statement.pieces[left % count];
        if (position == 0 && !statement.is_raw && piece.starts_with(' ')) piece.erase(0, 1);
        moment.piece = std::move(piece);
        return moment;
      }
      left -= count * statement.repeats;
    }
  }
  return moment;
}

/// Each token points somewhere, as its hash says; a text points where its tokens do together.
std::vector<float> scripted_embedding(std::span<const Token> tokens, std::uint32_t size) {
  std::vector<double> sum(size);
  std::uint64_t order = 0;
  for (const Token token : tokens) {
    std::uint64_t state = static_cast<std::uint64_t>(token) + 1 + 31 * ++order;
    for (double& part : sum) {
      state = state * 6364136223846793005U + 1442695040888963407U;  // Knuth's generator.
      part += static_cast<double>(state >> 40) / (1U << 23) - 1;
    }
  }
  double square = 0;
  for (const double part : sum) square += part * part;
  std::vector<float> vector;
  for (const double part : sum) vector.push_back(static_cast<float>(part / std::sqrt(square)));
  return vector;
}

}  // namespace pensieve::engine
