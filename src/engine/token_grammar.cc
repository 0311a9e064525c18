#include "engine/token_grammar.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <exception>
#include <future>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include <dlpack/dlpack.h>
#include <fmt/core.h>
#include <xgrammar/xgrammar.h>

#include "base/heap.h"
#include "base/log.h"
#include "engine/allocation_account.h"
#include "engine/kept_grammars.h"
#include "engine/schema_formats.h"
#include "engine/structural_tag.h"
#include "engine/tool_text.h"

// xgrammar leaves its messages to its user where it is built so (XGRAMMAR_LOG_CUSTOMIZE). Its own
// way prints each warning each time, with paths of its source.
namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& /*file*/, int /*line*/,
                               const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level, const std::string& message);

void LogFatalImpl(const std::string& /*file*/, int /*line*/, const std::string& message) {
  throw std::runtime_error(message);
}

/// What a schema says and xgrammar cannot enforce: each once. That a token is not allowed is what
/// matchers are asked, and no news.
void LogMessageImpl(const std::string& file, int /*line*/, int /*level*/,
                    const std::string& message) {
  constexpr std::size_t kToldMax = 256;
  static std::mutex mutex;
  static std::set<std::string> told;
  if (file.find("grammar_matcher") != std::string::npos) return;
  {
    const std::lock_guard lock(mutex);
    if (told.size() >= kToldMax) told.clear();
    if (!told.insert(message).second) return;
  }
  pensieve::log::warning("a schema is not enforced in all it says: {}", message);
}

}  // namespace xgrammar

namespace pensieve::engine {
namespace {

struct XGrammar final : public TokenGrammar {
  XGrammar(xgrammar::CompiledGrammar grammar, std::size_t tokens, GrammarCharge charged,
           Bytes for_following, std::shared_ptr<AllocationPool> borrowing)
      : compiled(std::move(grammar)),
        vocabulary(tokens),
        charge(std::move(charged)),
        following(for_following),
        pool(std::move(borrowing)) {}

  const xgrammar::CompiledGrammar compiled;
  const std::size_t vocabulary;
  const GrammarCharge charge;
  const Bytes following;                       // What each that follows it has for itself,
  const std::shared_ptr<AllocationPool> pool;  // and may borrow.
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

/// xgrammar writes characters up to U+00FF with two hexadecimal digits, but reads as many digits as
/// there are: a sharp s with an e behind it would come back as one character.
std::string with_exact_escapes(std::string_view grammar) {
  std::string out;
  out.reserve(grammar.size());
  for (std::size_t i = 0; i < grammar.size(); ++i) {
    out += grammar[i];
    if (grammar[i] != '\\' || i + 1 == grammar.size()) continue;
    ++i;
    out += grammar[i] == 'x' ? std::string_view("u00") : grammar.substr(i, 1);
  }
  return out;
}

/// Names of the rules that stand for one digit.
std::vector<std::string> digit_rules(std::string_view grammar) {
  constexpr std::string_view kDigit = " ::= (([0-9]))\n";
  std::vector<std::string> rules;
  for (std::size_t at = grammar.find(kDigit); at != std::string_view::npos;
       at = grammar.find(kDigit, at + kDigit.size())) {
    const std::size_t line = grammar.rfind('\n', at);
    const std::size_t begin = line == std::string_view::npos ? 0 : line + 1;
    rules.emplace_back(grammar.substr(begin, at - begin));
  }
  return rules;
}

/// Whether a pattern repeats something more often than xgrammar's automata can count.
bool has_long_repetition(std::string_view pattern) {
  constexpr int kRepetitionMax = 128;
  int number = 0;
  bool is_inside = false;
  for (const char c : pattern) {
    if (c == '{') {
      is_inside = true;
      number = 0;
    } else if (is_inside && c >= '0' && c <= '9') {
      number = std::min(10 * number + (c - '0'), 10 * kRepetitionMax);
      if (number > kRepetitionMax) return true;
    } else {
      is_inside = is_inside && c == ',';
      number = 0;
    }
  }
  return false;
}

/// Values that have an end and are JSON. xgrammar's numbers without bounds get some: 19 digits, as
/// many behind the point, exponents of two. A small model can go on writing digits for ever.
std::string with_json_texts(std::string grammar) {
  replace_all(grammar, "([eE] basic_number_4 basic_number_digits{1, -1})",
              "([eE] basic_number_4 basic_number_digits{1, 2})");
  // Strings with a length may have no control characters either: that would be no JSON.
  replace_all(grammar, R"([^\"\\\r\n])", R"([^\0-\u001f\"\\\r\n])");
  replace_all(grammar, "[1-9] [0-9]*", "[1-9] [0-9]{0, 18}");
  for (const std::string& rule : digit_rules(grammar)) {
    replace_all(grammar, "[1-9] " + rule + "{1, -1}", "[1-9] " + rule + "{1, 18}");
    replace_all(grammar, " " + rule + "{1, -1}", " " + rule + "{1, 19}");
  }
  return grammar;
}

}  // namespace

struct TokenMatcher::Impl {
  /// xgrammar remembers each byte of an answer, with all that it may be a part of: for most schemas
  /// 100 bytes, for an ambiguous pattern megabytes.
  struct Following {
    explicit Following(const XGrammar& grammar)
        : account(grammar.following, grammar.pool), matcher(made(grammar, account)) {}

    static xgrammar::GrammarMatcher made(const XGrammar& grammar, AllocationAccount& account) {
      const AllocationScope scope(account);
      return xgrammar::GrammarMatcher(grammar.compiled);
    }

    AllocationAccount account;
    xgrammar::GrammarMatcher matcher;
  };

  explicit Impl(std::shared_ptr<const TokenGrammar> shared)
      : grammar(std::static_pointer_cast<const XGrammar>(std::move(shared))),
        bits(static_cast<std::size_t>(
            xgrammar::GetBitmaskSize(static_cast<int>(grammar->vocabulary)))) {
    try {
      following.emplace(*grammar);
    } catch (const AllocationRefused&) {
      give_up();
    }
  }

  /// What `ask` says of the matcher; `otherwise` where the grammar is not followed any more.
  template <class Ask>
  bool asked(Ask ask, bool otherwise) {
    if (!following) return otherwise;
    try {
      const AllocationScope scope(following->account);
      return ask(following->matcher);
    } catch (const AllocationRefused&) {
      give_up();
      return otherwise;
    }
  }

  void give_up() {
    following.reset();
    log::warning("an answer goes on without its grammar: to follow it takes too much memory");
  }

  std::shared_ptr<const XGrammar> grammar;
  std::optional<Following> following;  // Empty: all is allowed.
  std::vector<std::int32_t> bits;      // One bit per token of the vocabulary.
};

TokenMatcher::TokenMatcher(std::shared_ptr<const TokenGrammar> grammar)
    : impl_(std::make_unique<Impl>(std::move(grammar))) {}
TokenMatcher::TokenMatcher(TokenMatcher&&) noexcept = default;
TokenMatcher& TokenMatcher::operator=(TokenMatcher&&) noexcept = default;
TokenMatcher::~TokenMatcher() = default;

void TokenMatcher::mask(std::span<float> logits) {
  PENSIEVE_CHECK(logits.size() == impl_->grammar->vocabulary);
  std::int64_t words = static_cast<std::int64_t>(impl_->bits.size());
  std::int64_t stride = 1;
  DLTensor bits{
      impl_->bits.data(), {kDLCPU, 0}, 1, xgrammar::GetBitmaskDLType(), &words, &stride, 0};
  const auto fill = [&bits](auto& matcher) { return matcher.FillNextTokenBitmask(&bits); };
  if (!impl_->asked(fill, false)) return;  // All are allowed.
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  constexpr std::uint32_t kWholeWord = 0xFFFFFFFF;
  for (std::size_t word = 0; word < impl_->bits.size(); ++word) {
    auto forbidden = ~static_cast<std::uint32_t>(impl_->bits[word]);
    if (forbidden == kWholeWord && 32 * (word + 1) <= logits.size()) {
      std::fill_n(logits.begin() + static_cast<std::ptrdiff_t>(32 * word), 32, kNever);
      continue;
    }
    for (; forbidden != 0; forbidden &= forbidden - 1) {
      const std::size_t token = 32 * word + static_cast<std::size_t>(std::countr_zero(forbidden));
      if (token < logits.size()) logits[token] = kNever;
    }
  }
}

bool TokenMatcher::accept(Token token) {
  const auto take = [token](auto& matcher) {
    return !matcher.IsTerminated() && matcher.AcceptToken(token);
  };
  return impl_->asked(take, true);
}

bool TokenMatcher::finished() const {
  return impl_->following && impl_->following->matcher.IsTerminated();
}

std::string schema_grammar(std::string_view schema, int spaces_max) {
  const std::string bounded = with_bounded_formats(schema);
  const xgrammar::Grammar grammar =
      spaces_max > 0
          ? xgrammar::Grammar::FromJSONSchema(bounded, true, std::nullopt, std::nullopt, true,
                                              spaces_max)
          : xgrammar::Grammar::FromJSONSchema(bounded, false, std::nullopt,
                                              std::pair<std::string, std::string>(",", ":"));
  return with_json_texts(with_exact_escapes(grammar.ToString()));
}

std::string schema_format(std::string_view schema, int spaces_max) {
  return grammar_format(schema_grammar(schema, spaces_max));
}

std::string pattern_grammar(std::string_view pattern) {
  return with_exact_escapes(xgrammar::Grammar::FromRegex(std::string(pattern)).ToString());
}

bool can_follow_pattern(std::string_view pattern) {
  if (has_long_repetition(pattern)) return false;
  // Lookaround is left out by xgrammar, and the log would be all that says so.
  for (const char* lookaround : {"(?=", "(?!", "(?<"}) {
    if (pattern.find(lookaround) != std::string_view::npos) return false;
  }
  try {
    const xgrammar::Grammar grammar = xgrammar::Grammar::FromJSONSchema(
        fmt::format(R"({{"type":"string","pattern":{}}})", json_string(pattern)), false);
    return grammar.ToString().find("Regex(") != std::string::npos;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {
    return false;
  }
}

struct GrammarCompiler::Impl {
  Impl(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens,
       const GrammarMemory& bounds)
      : vocabulary(pieces.size()),
        memory(bounds),
        pool(std::make_shared<AllocationPool>(bounds.shared)),
        kept(bounds.kept),
        tokens(pieces, xgrammar::VocabType::RAW, static_cast<int>(pieces.size()),
               std::move(stop_tokens)) {}

  using Outcome = Result<std::shared_ptr<const TokenGrammar>>;

  /// xgrammar's own cache lets go only after it has taken more than it may, and knows nothing of
  /// grammars in use. So each compilation has a compiler of its own, for what its rules have in
  /// common.
  xgrammar::CompiledGrammar compile(const std::string& tag) const {
    const auto common_bytes = static_cast<std::int64_t>(memory.shared.count() / 4);
    // A third of what it is given is for rules.
    xgrammar::GrammarCompiler compiler(tokens, 1, true, 3 * common_bytes);
    return compiler.CompileStructuralTag(tag);
  }

  /// Errors: as GrammarCompiler::compile(). Throws std::bad_alloc where the machine has no more.
  Outcome compiled(const std::string& key, const MakeTag& make_tag, AllocationAccount& account) {
    try {
      std::optional<xgrammar::CompiledGrammar> grammar;
      {
        const AllocationScope scope(account);
        const std::string tag = make_tag();
        if (tag.size() > kTagBytesMax) {
          return fail(Code::kInvalidArgument,
                      fmt::format("the tools and schemas of a request may have {} bytes, not {}",
                                  kTagBytesMax, tag.size()));
        }
        grammar.emplace(compile(tag));
      }
      const auto make = [&](GrammarCharge charge) {
        return std::make_shared<XGrammar>(*std::move(grammar), vocabulary, std::move(charge),
                                          memory.following, pool);
      };
      if (auto shared = kept.add(key, account.held(), make)) return shared;
      return fail(Code::kOutOfMemory, "the grammars in use leave no memory for those of a request");
    } catch (const AllocationRefused&) {
      return fail(Code::kOutOfMemory, "the schemas take too much memory to compile");
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      return fail(Code::kInvalidArgument, error.what());
    }
  }

  /// What became of a compilation that was given up; empty where there was none.
  std::optional<Outcome> given_up_before(const std::string& key) {
    const std::lock_guard lock(mutex);
    forget_compiled();
    const auto known = given_up.find(key);
    if (known == given_up.end()) return std::nullopt;
    if (!is_ready(known->second)) {
      return fail(Code::kUnavailable, "the schemas are still being compiled");
    }
    const Outcome result = known->second.get();
    // What is too large stays so, and is not tried again and again.
    if (result.error().code != Code::kOutOfMemory) given_up.erase(known);
    return result;
  }

  /// Under the lock. They are among the kept ones, and must not count as used for ever.
  void forget_compiled() {
    std::erase_if(given_up, [](const auto& entry) {
      return is_ready(entry.second) && entry.second.get().has_value();
    });
  }

  void give_up(const std::string& key, std::shared_future<Outcome> result) {
    const std::lock_guard lock(mutex);
    // Those that go on are fewer than kCompilingMax.
    if (given_up.size() >= kGivenUpMax || !has_room_for(key)) {
      std::erase_if(given_up, [](const auto& entry) { return is_ready(entry.second); });
    }
    if (has_room_for(key)) given_up.insert_or_assign(key, std::move(result));
  }

  bool has_room_for(const std::string& key) const {
    std::size_t bytes = key.size();
    for (const auto& [known, result] : given_up) bytes += known.size();
    return bytes <= kGivenUpBytesMax;
  }

  static bool is_ready(const std::shared_future<Outcome>& result) {
    return result.wait_for(Duration()) == std::future_status::ready;
  }

  const std::size_t vocabulary;
  const GrammarMemory memory;
  const std::shared_ptr<AllocationPool> pool;
  KeptGrammars<XGrammar> kept;
  std::atomic<int> compiling = 0;
  std::mutex mutex;
  std::map<std::string, std::shared_future<Outcome>> given_up;  // Guarded by mutex.
  const xgrammar::TokenizerInfo tokens;
};

GrammarCompiler::GrammarCompiler(const std::vector<std::string>& pieces,
                                 std::vector<Token> stop_tokens, const GrammarMemory& memory)
    : impl_(std::make_shared<Impl>(pieces, std::move(stop_tokens), memory)) {}
GrammarCompiler::~GrammarCompiler() = default;

Result<std::shared_ptr<const TokenGrammar>> GrammarCompiler::compile(const std::string& tag) {
  return compile(
      tag, [tag] { return tag; }, kCompileMax);
}

Result<std::shared_ptr<const TokenGrammar>> GrammarCompiler::compile(const std::string& key,
                                                                     MakeTag make_tag,
                                                                     Duration wait) {
  if (std::shared_ptr<const TokenGrammar> known = impl_->kept.find(key)) return known;
  if (std::optional<Impl::Outcome> known = impl_->given_up_before(key)) return *std::move(known);
  if (impl_->compiling.load() >= GrammarMemory::kCompilingMax) {
    return fail(Code::kUnavailable, "too many schemas are being compiled");
  }
  // In a thread of its own, which is left alone where it takes too long: a schema that explodes
  // must not silence the worker.
  ++impl_->compiling;
  auto account = std::make_shared<AllocationAccount>(impl_->memory.compiling, impl_->pool);
  std::promise<Impl::Outcome> promise;
  std::shared_future<Impl::Outcome> result = promise.get_future().share();
  std::thread([impl = impl_, key, make = std::move(make_tag), account,
               promise = std::move(promise)]() mutable {
    std::optional<Impl::Outcome> outcome;
    std::exception_ptr no_memory;
    try {
      outcome = impl->compiled(key, make, *account);
    } catch (const std::bad_alloc&) {
      no_memory = std::current_exception();
    }
    account.reset();
    trim_heap();
    --impl->compiling;  // First: who gets the result may compile the next at once.
    if (outcome) {
      promise.set_value(*std::move(outcome));
    } else {
      promise.set_exception(no_memory);
    }
  }).detach();
  if (result.wait_for(wait) == std::future_status::ready) {
    const Bytes much(impl_->memory.shared.count() / 2);
    const bool is_too_large = account->borrowed() >= much && !result.get();
    if (is_too_large) impl_->give_up(key, result);
    return result.get();
  }
  if (impl_->compiling.load() < GrammarMemory::kCompilingMax) {
    impl_->give_up(key, std::move(result));
  } else {
    // Another goes on already, and what is tried next needs a place.
    account->stop();
    result.wait_for(kStopMax);
  }
  return fail(Code::kDeadlineExceeded, "the schemas take too long to compile");
}

Result<std::shared_ptr<const TokenGrammar>> GrammarCompiler::compile_simple(
    const std::string& tag) {
  if (std::shared_ptr<const TokenGrammar> known = impl_->kept.find(tag)) return known;
  AllocationAccount account(impl_->memory.compiling, impl_->pool);
  Impl::Outcome outcome = impl_->compiled(
      tag, [&tag] { return tag; }, account);
  if (outcome || outcome.error().code != Code::kOutOfMemory) return outcome;
  return fail(Code::kUnavailable, "other requests' schemas take all the memory for grammars");
}

}  // namespace pensieve::engine
