#include "api/content.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "api/documents.h"
#include "api/raw_json.h"
#include "api/thinking.h"
#include "base/base64.h"
#include "base/error.h"

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;
using engine::Role;

/// One block with the bytes it was parsed from.
struct Block {
  const object& members;
  std::string_view raw;
  Reader reader;
};

using Read = std::expected<void, Refusal>;

std::unexpected<Refusal> refuse_type(std::string_view type, std::string_view known) {
  return refuse("", fmt::format("Input tag '{}' found using 'type' does not match any of the "
                                "expected tags: {}",
                                type, known));
}

std::expected<std::string_view, Refusal> type_of(const value& block) {
  const object* members = block.if_object();
  if (members == nullptr) return refuse("", "Input should be an object");
  return require_string(*members, "type");
}

/// An id or a name: a string with at least one character.
std::expected<std::string_view, Refusal> require_name(const object& block, std::string_view key) {
  auto name = require_string(block, key);
  if (name && name->empty()) {
    return refuse(std::string(key), "String should have at least 1 character");
  }
  return name;
}

Read read_text(const Block& block, std::vector<Part>& parts) {
  const auto text = require_string(block.members, "text");
  if (!text) return std::unexpected(text.error());
  const bool is_said = !text->empty() && !block.reader.is_over;
  if (is_said) parts.push_back({Part::Kind::kText, std::string(*text)});
  return {};
}

Read read_nothing(const Block&, std::vector<Part>&) {
  return {};
}

constexpr std::string_view kCannotSee = "this model cannot read images";

/// A picture at the end of a text that has `at` bytes so far.
std::expected<engine::Image, Refusal> image_in(const object& block, std::size_t at) {
  constexpr std::array<std::string_view, 4> kMediaTypes = {"image/jpeg", "image/png", "image/gif",
                                                           "image/webp"};
  const auto found = require(block, "source");
  if (!found) return std::unexpected(found.error());
  const object* source = (*found)->if_object();
  if (source == nullptr) return refuse("source", "Input should be an object");
  const auto in_source = [](const Refusal& refusal) {
    return std::unexpected(within("source", refusal));
  };
  const auto type = require_string(*source, "type");
  if (!type) return in_source(type.error());
  if (*type != "base64") {
    return refuse("source.type", fmt::format("this server fetches nothing: send the image as "
                                             "'base64', not as '{}'",
                                             *type));
  }
  const auto media_type = require_string(*source, "media_type");
  if (!media_type) return in_source(media_type.error());
  if (std::find(kMediaTypes.begin(), kMediaTypes.end(), *media_type) == kMediaTypes.end()) {
    return refuse("source.media_type",
                  "Input should be 'image/jpeg', 'image/png', 'image/gif' or "
                  "'image/webp'");
  }
  const auto data = require_string(*source, "data");
  if (!data) return in_source(data.error());
  if (!is_base64(*data)) return refuse("source.data", "Input should be valid base64");
  return engine::Image{at, std::string(*media_type), std::string(*data), "source.data"};
}

Read read_image(const Block& block, std::vector<Part>& parts) {
  if (!block.reader.sees) return refuse("", std::string(kCannotSee));
  if (block.reader.role != Role::kUser) return refuse("", "only a user's images can be read");
  auto image = image_in(block.members, 0);
  if (!image) return std::unexpected(image.error());
  Part part{.kind = Part::Kind::kImage};
  part.images.push_back(*std::move(image));
  parts.push_back(std::move(part));
  return {};
}

Read append_text(std::expected<std::string, Refusal> text, std::vector<Part>& parts) {
  if (!text) return std::unexpected(text.error());
  if (!text->empty()) parts.push_back({Part::Kind::kText, *std::move(text)});
  return {};
}

Read read_document(const Block& block, std::vector<Part>& parts) {
  return append_text(document_text(block.members), parts);
}

Read read_search_result(const Block& block, std::vector<Part>& parts) {
  return append_text(search_result_text(block.members), parts);
}

/// What a tool_addition or tool_removal is about.
std::expected<const object*, Refusal> changed_tool(const Block& block) {
  const auto found = require(block.members, "tool");
  if (!found) return std::unexpected(found.error());
  const object* tool = (*found)->if_object();
  if (tool == nullptr) return refuse("tool", "Input should be an object");
  return tool;
}

/// The tool may be called from here on; its description stands where it came.
Read read_tool_addition(const Block& block, std::vector<Part>& parts) {
  const auto tool = changed_tool(block);
  if (!tool) return std::unexpected(tool.error());
  std::expected<std::string, Refusal> text;
  if (find(**tool, "definition") != nullptr) {
    const std::string_view raw = raw_member(raw_member(block.raw, "tool"), "definition");
    text = block.reader.tools.define(*find(**tool, "definition"), raw);
    if (!text) text = std::unexpected(within("definition", text.error()));
  } else {
    const auto name = require_name(**tool, "name");
    text = name ? block.reader.tools.add(*name)
                : std::expected<std::string, Refusal>(std::unexpected(name.error()));
  }
  if (!text) return std::unexpected(within("tool", text.error()));
  return append_text(std::move(text), parts);
}

Read read_tool_removal(const Block& block, std::vector<Part>& parts) {
  const auto tool = changed_tool(block);
  if (!tool) return std::unexpected(tool.error());
  const auto name = require_name(**tool, "name");
  if (!name) return std::unexpected(within("tool", name.error()));
  return append_text(block.reader.tools.remove(*name), parts);
}

Read read_thinking(const Block& block, std::vector<Part>& parts) {
  const auto thinking = require_string(block.members, "thinking");
  if (!thinking) return std::unexpected(thinking.error());
  std::string thoughts(*thinking);
  const value* signature = find(block.members, "signature");
  if (thoughts.empty() && signature != nullptr && signature->is_string()) {
    thoughts = thinking_in(signature->get_string()).value_or("");
  }
  if (!thoughts.empty()) parts.push_back({Part::Kind::kThinking, std::move(thoughts)});
  return {};
}

Read read_tool_use(const Block& block, std::vector<Part>& parts) {
  const auto id = require_name(block.members, "id");
  if (!id) return std::unexpected(id.error());
  const auto name = require_name(block.members, "name");
  if (!name) return std::unexpected(name.error());
  const auto input = require(block.members, "input");
  if (!input) return std::unexpected(input.error());
  if (!(*input)->is_object()) return refuse("input", "Input should be an object");
  parts.push_back({.kind = Part::Kind::kToolUse,
                   .tool_use_id = std::string(*id),
                   .tool_name = std::string(*name),
                   .arguments = compact_json(raw_member(block.raw, "input"))});
  return {};
}

/// One block inside a tool result, as text. A picture there must not end the session of a model
/// that cannot see: the model is told that it was left out.
std::expected<std::string, Refusal> result_line(const value& block, ToolList& tools) {
  const auto type = type_of(block);
  if (!type) return std::unexpected(type.error());
  const object& members = block.get_object();
  if (*type == "text") {
    const auto text = require_string(members, "text");
    if (!text) return std::unexpected(text.error());
    return std::string(*text);
  }
  if (*type == "tool_reference") {
    const auto name = require_name(members, "tool_name");
    if (!name) return std::unexpected(name.error());
    return tools.reference(*name);
  }
  if (*type == "image") return "[image omitted: this model cannot read images]";
  if (*type == "document") {
    return document_text(members).value_or(fmt::format("[document omitted: {}]", kCannotRead));
  }
  if (*type == "search_result") return search_result_text(members);
  return refuse_type(*type, "'text', 'image', 'document', 'search_result', 'tool_reference'");
}

/// Appends what the tool said. No line break next to a picture: its model does not expect one.
Read append_result(const value& content, const Reader& reader, Part& result) {
  if (const boost::json::string* text = content.if_string()) {
    result.text.append(text->data(), text->size());
    return {};
  }
  const boost::json::array* blocks = content.if_array();
  if (blocks == nullptr) return refuse("", "Input should be a valid string or list");
  bool is_joined = false;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    const auto type = type_of((*blocks)[i]);
    if (type && *type == "image" && reader.sees) {
      auto image = image_in((*blocks)[i].get_object(), result.text.size());
      if (!image) return std::unexpected(within(i, image.error()));
      image->field = fmt::format("{}.{}", i, image->field);
      result.images.push_back(*std::move(image));
      is_joined = false;
      continue;
    }
    const auto line = result_line((*blocks)[i], reader.tools);
    if (!line) return std::unexpected(within(i, line.error()));
    if (line->empty()) continue;
    if (is_joined) result.text += '\n';
    result.text += *line;
    is_joined = true;
  }
  return {};
}

Read read_tool_result(const Block& block, std::vector<Part>& parts) {
  const auto id = require_name(block.members, "tool_use_id");
  if (!id) return std::unexpected(id.error());
  Part part{.kind = Part::Kind::kToolResult, .tool_use_id = std::string(*id)};
  if (const value* is_error = find(block.members, "is_error")) {
    if (!is_error->is_bool()) return refuse("is_error", "Input should be a valid boolean");
    if (is_error->get_bool()) part.text += "Error: ";
  }
  if (const value* content = find(block.members, "content")) {
    const Read read = append_result(*content, block.reader, part);
    if (!read) return std::unexpected(within("content", read.error()));
    put_within("content", part);
  }
  parts.push_back(std::move(part));
  return {};
}

/// Pages by title and address: what was read of them is for Anthropic's eyes only. A search that
/// failed, as ours do, leaves nothing.
Read read_web_search_result(const Block& block, std::vector<Part>& parts) {
  const value* content = find(block.members, "content");
  const boost::json::array* pages = content == nullptr ? nullptr : content->if_array();
  if (pages == nullptr) return {};
  std::string text;
  for (std::size_t i = 0; i < pages->size(); ++i) {
    const object* page = (*pages)[i].if_object();
    if (page == nullptr) return refuse("content", "Input should be a list of objects");
    const auto title = require_string(*page, "title");
    const auto url = require_string(*page, "url");
    if (!title) return std::unexpected(within("content", within(i, title.error())));
    if (!url) return std::unexpected(within("content", within(i, url.error())));
    if (!text.empty()) text += '\n';
    text += fmt::format("Found: {} ({})", *title, *url);
  }
  if (!text.empty()) parts.push_back({Part::Kind::kText, std::move(text)});
  return {};
}

struct BlockType {
  std::string_view name;
  Read (*read)(const Block&, std::vector<Part>&);
  bool user, assistant, system;  // Whose messages it may stand in.
};
constexpr std::array kBlockTypes = {
    BlockType{"text", read_text, true, true, true},
    BlockType{"tool_use", read_tool_use, false, true, false},
    BlockType{"tool_result", read_tool_result, true, false, false},
    BlockType{"thinking", read_thinking, false, true, false},
    BlockType{"redacted_thinking", read_nothing, false, true, false},
    BlockType{"server_tool_use", read_nothing, false, true, false},
    BlockType{"web_search_tool_result", read_web_search_result, false, true, false},
    BlockType{"image", read_image, true, true, false},
    BlockType{"document", read_document, true, true, false},
    BlockType{"search_result", read_search_result, true, false, false},
    BlockType{"tool_addition", read_tool_addition, false, false, true},
    BlockType{"tool_removal", read_tool_removal, false, false, true},
};

bool may_stand(const BlockType& type, Role role) {
  switch (role) {
    case Role::kUser:
      return type.user;
    case Role::kAssistant:
      return type.assistant;
    case Role::kSystem:
      return type.system;
    case Role::kTool:
      break;  // Results are blocks of the user here.
  }
  return false;
}

std::string tags_of(Role role) {
  std::string tags;
  for (const BlockType& type : kBlockTypes) {
    if (may_stand(type, role)) tags += fmt::format("{}'{}'", tags.empty() ? "" : ", ", type.name);
  }
  return tags;
}

Read read_block(const value& block, std::string_view raw, Reader reader, std::vector<Part>& parts) {
  const auto type = type_of(block);
  if (!type) return std::unexpected(type.error());
  for (const BlockType& known : kBlockTypes) {
    if (known.name == *type && may_stand(known, reader.role)) {
      return known.read(Block{block.get_object(), raw, reader}, parts);
    }
  }
  return refuse_type(*type, tags_of(reader.role));
}

/// The bytes of each block where a block needs its bytes, nothing elsewhere: most messages hold
/// text only and are not read a second time.
std::vector<std::string_view> raw_blocks(const boost::json::array& blocks, std::string_view raw) {
  for (const value& block : blocks) {
    const auto type = type_of(block);
    if (!type || (*type != "tool_use" && *type != "tool_addition")) continue;
    std::vector<std::string_view> elements = raw_elements(raw);
    PENSIEVE_CHECK(elements.size() == blocks.size());
    return elements;
  }
  return std::vector<std::string_view>(blocks.size());
}

}  // namespace

std::expected<std::vector<Part>, Refusal> parse_content(const value& content, std::string_view raw,
                                                        Reader reader) {
  std::vector<Part> parts;
  if (const boost::json::string* text = content.if_string()) {
    if (!text->empty() && !reader.is_over) {
      parts.push_back({Part::Kind::kText, std::string(text->data(), text->size())});
    }
    return parts;
  }
  const boost::json::array* blocks = content.if_array();
  if (blocks == nullptr) return refuse("", "Input should be a valid string or list");
  const std::vector<std::string_view> raws = raw_blocks(*blocks, raw);
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    const std::size_t before = parts.size();
    const Read read = read_block((*blocks)[i], raws[i], reader, parts);
    if (!read) return std::unexpected(within(i, read.error()));
    for (std::size_t at = before; at < parts.size(); ++at) {
      put_within(std::to_string(i), parts[at]);
    }
  }
  return parts;
}

void put_within(std::string_view outer, Part& part) {
  for (engine::Image& image : part.images) image.field = fmt::format("{}.{}", outer, image.field);
}

}  // namespace pensieve::api
