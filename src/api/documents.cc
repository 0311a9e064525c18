#include "api/documents.h"

#include <initializer_list>
#include <utility>

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;

/// The text of a document's `content`, a string or text blocks.
std::expected<std::string, Refusal> content_text(const value& content) {
  if (const boost::json::string* text = content.if_string()) return std::string(*text);
  const boost::json::array* blocks = content.if_array();
  if (blocks == nullptr) return refuse("", "Input should be a valid string or list");
  std::string joined;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    const object* block = (*blocks)[i].if_object();
    if (block == nullptr) return refuse(std::to_string(i), "Input should be an object");
    const auto type = require_string(*block, "type");
    if (!type) return std::unexpected(within(i, type.error()));
    if (*type != "text") return refuse(std::to_string(i), std::string(kCannotRead));
    const auto text = require_string(*block, "text");
    if (!text) return std::unexpected(within(i, text.error()));
    if (!joined.empty()) joined += '\n';
    joined += *text;
  }
  return joined;
}

/// `text` below the members of `block` that are strings and not empty.
std::string below(const object& block, std::initializer_list<std::string_view> names,
                  std::string_view text) {
  std::string whole;
  for (const std::string_view name : names) {
    const value* const head = find(block, name);
    if (head == nullptr || !head->is_string() || head->get_string().empty()) continue;
    whole.append(head->get_string().data(), head->get_string().size());
    whole += '\n';
  }
  whole += text;
  return whole;
}

}  // namespace

std::expected<std::string, Refusal> document_text(const object& block) {
  const auto found = require(block, "source");
  if (!found) return std::unexpected(found.error());
  const object* source = (*found)->if_object();
  if (source == nullptr) return refuse("source", "Input should be an object");
  const auto type = require_string(*source, "type");
  if (!type) return std::unexpected(within("source", type.error()));
  const bool is_text = *type == "text";
  if (!is_text && *type != "content") return refuse("source.type", std::string(kCannotRead));
  const std::string_view key = is_text ? "data" : "content";
  const auto content = require(*source, key);
  if (!content) return std::unexpected(within("source", content.error()));
  if (is_text && !(*content)->is_string()) return refuse("source.data", "Input should be a string");
  auto text = content_text(**content);
  if (!text) return std::unexpected(within("source", within(key, text.error())));
  return below(block, {"title", "context"}, *text);
}

std::expected<std::string, Refusal> search_result_text(const object& block) {
  const auto content = require(block, "content");
  if (!content) return std::unexpected(content.error());
  const auto text = content_text(**content);
  if (!text) return std::unexpected(within("content", text.error()));
  return below(block, {"title", "source"}, *text);
}

}  // namespace pensieve::api
