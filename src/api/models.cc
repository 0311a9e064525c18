#include "api/response.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "api/json.h"

namespace pensieve::api {
namespace {

constexpr std::uint32_t kLimitMin = 1;
constexpr std::uint32_t kLimitMax = 1000;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// In a query, other than in a path, "+" is a space.
std::string query_decoded(std::string_view text) {
  std::string spaced(text);
  std::ranges::replace(spaced, '+', ' ');
  return percent_decoded(spaced);
}

std::expected<std::uint32_t, ApiError> parse_limit(std::string_view text) {
  std::uint32_t limit = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), limit);
  const bool is_number = end == text.data() + text.size() && code != std::errc::invalid_argument;
  if (!is_number) return std::unexpected(invalid_request("limit: Input should be a valid integer"));
  if (code == std::errc::result_out_of_range || limit > kLimitMax) {
    return std::unexpected(
        invalid_request(fmt::format("limit: Input should be less than or equal to {}", kLimitMax)));
  }
  if (limit < kLimitMin) {
    return std::unexpected(invalid_request(
        fmt::format("limit: Input should be greater than or equal to {}", kLimitMin)));
  }
  return limit;
}

/// Half-open range of positions in the list of all entries.
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool has_more = false;
};

Range range_of(std::span<const std::string> ids, const Page& page) {
  const auto position = [ids](const std::string& id) {
    return static_cast<std::size_t>(std::ranges::find(ids, id) - ids.begin());
  };
  if (!page.before_id.empty()) {
    const std::size_t end = position(page.before_id);
    if (end == ids.size()) return {};
    const std::size_t begin = end - std::min<std::size_t>(page.limit, end);
    return {begin, end, begin > 0};
  }
  std::size_t begin = 0;
  if (!page.after_id.empty()) {
    const std::size_t after = position(page.after_id);
    if (after == ids.size()) return {};
    begin = after + 1;
  }
  const std::size_t end = begin + std::min<std::size_t>(page.limit, ids.size() - begin);
  return {begin, end, end < ids.size()};
}

/// The id of the page's first or last entry; null where the page is empty.
void append_id(std::string& out, std::span<const std::string> ids, bool first) {
  if (ids.empty()) {
    out += "null";
  } else {
    append_json(out, first ? ids.front() : ids.back());
  }
}

void append_known(std::string& out, const std::optional<std::uint32_t>& number) {
  if (number) {
    append_json(out, *number);
  } else {
    out += "null";
  }
}

/// `"name":{"supported":...}`, as the API spells each capability.
void append_support(std::string& out, std::string_view name, bool supported) {
  append_json(out, name);
  out += R"(:{"supported":)";
  out += supported ? "true" : "false";
  out += '}';
}

void append_effort(std::string& out, bool thinks) {
  out += R"("effort":{"supported":)";
  out += thinks ? "true" : "false";
  for (const std::string_view level : {"low", "medium", "high", "xhigh", "max"}) {
    out += ',';
    // The two above "high" are taken for it.
    append_support(out, level, thinks && level != "xhigh" && level != "max");
  }
  out += '}';
}

/// The types that mean "off" are supported by models that do not think, too: it is what they do.
void append_thinking(std::string& out, bool thinks) {
  out += R"("thinking":{"supported":)";
  out += thinks ? "true" : "false";
  out += R"(,"types":{)";
  append_support(out, "adaptive", thinks);
  out += ',';
  append_support(out, "between_tools", true);
  out += ',';
  append_support(out, "disabled", true);
  out += ',';
  append_support(out, "enabled", thinks);
  out += "}}";
}

/// Every key that the API knows: clients look them up without asking whether they are there. Fields
/// of a request that are accepted and ignored are not supported. `messages` and `embeddings` are
/// ours: which of the two a model is for.
void append_capabilities(std::string& out, const Capabilities& capabilities) {
  const bool embeds = capabilities.engine.embeddings;
  out += '{';
  append_support(out, "messages", !embeds);
  out += ',';
  append_support(out, "embeddings", embeds);
  out += ',';
  append_support(out, "batch", capabilities.batches && !embeds);
  for (const std::string_view name : {"citations", "code_execution"}) {
    out += ',';
    append_support(out, name, false);
  }
  out += ',';
  append_support(out, "image_input", capabilities.engine.image_input);
  out += ',';
  append_support(out, "pdf_input", false);
  out += ',';
  append_support(out, "structured_outputs", capabilities.engine.structured_outputs);
  out += R"(,"context_management":{"supported":false},)";
  append_effort(out, capabilities.engine.thinking);
  out += R"(,"server_tools":{"supported":false)";
  for (const std::string_view tool : {"web_search", "code_execution"}) {
    out += ',';
    append_support(out, tool, false);
  }
  out += "},";
  append_thinking(out, capabilities.engine.thinking);
  out += '}';
}

}  // namespace

std::string percent_decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high * 16 + low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

std::expected<Page, ApiError> parse_page(std::string_view query) {
  Page page;
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string key = query_decoded(pair.substr(0, equals));
    std::string value = query_decoded(pair.substr(equals + 1));
    if (value.empty()) continue;
    if (key == "limit") {
      const auto limit = parse_limit(value);
      if (!limit) return std::unexpected(limit.error());
      page.limit = *limit;
    } else if (key == "after_id") {
      page.after_id = std::move(value);
    } else if (key == "before_id") {
      page.before_id = std::move(value);
    }
  }
  if (!page.after_id.empty() && !page.before_id.empty()) {
    return std::unexpected(invalid_request("after_id and before_id cannot be used together"));
  }
  return page;
}

std::string model_body(const Model& model) {
  std::string out = R"({"type":"model","id":)";
  append_json(out, model.id);
  out += R"(,"display_name":)";
  append_json(out, model.display_name);
  out += R"(,"created_at":)";
  append_json(out, rfc3339(model.created_at));
  out += R"(,"max_input_tokens":)";
  append_known(out, model.input_tokens_max);
  out += R"(,"max_tokens":)";
  append_known(out, model.output_tokens_max);
  out += R"(,"lifecycle":"active","capabilities":)";
  if (model.capabilities) {
    append_capabilities(out, *model.capabilities);
  } else {
    out += "null";
  }
  // What OpenAI's clients read.
  out += R"(,"object":"model","created":)";
  append_json(out, static_cast<std::uint64_t>(model.created_at.time_since_epoch().count()));
  out += R"(,"owned_by":"pensieve"})";
  return out;
}

std::string page_body(std::span<const std::string> ids, const Page& page,
                      const std::function<std::string(std::size_t)>& entry) {
  const Range range = range_of(ids, page);
  const std::span<const std::string> listed = ids.subspan(range.begin, range.end - range.begin);
  std::string out = R"({"data":[)";
  for (std::size_t i = range.begin; i < range.end; ++i) {
    if (i > range.begin) out += ',';
    out += entry(i);
  }
  out += R"(],"has_more":)";
  out += range.has_more ? "true" : "false";
  out += R"(,"first_id":)";
  append_id(out, listed, true);
  out += R"(,"last_id":)";
  append_id(out, listed, false);
  out += R"(,"object":"list"})";
  return out;
}

std::string models_body(std::span<const Model> models, const Page& page) {
  std::vector<std::string> ids;
  for (const Model& model : models) ids.push_back(model.id);
  return page_body(ids, page, [models](std::size_t i) { return model_body(models[i]); });
}

}  // namespace pensieve::api
