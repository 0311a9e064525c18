// What a model is asked: a conversation in canonical form, the tools it may call, and what its
// answer may look like. Plain values; JSON stays text here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pensieve::engine {

enum class Role : std::uint8_t {
  kSystem,
  kUser,
  kAssistant,
  kTool,  // The result of one call.
};

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // A JSON object in compact form.

  bool operator==(const ToolCall&) const = default;
};

/// A picture that stands in a text. What is in the file only the engine finds out.
struct Image {
  std::size_t at = 0;      // Byte of the text in front of which it stands; may be its end.
  std::string media_type;  // "image/png"
  std::string base64;      // The file; is_base64() holds.
  std::string field = {};  // Where the request has it, for errors: "messages.0.content.1".

  bool operator==(const Image&) const = default;
};

/// Most images of one prompt, as Anthropic's API has it.
inline constexpr std::size_t kImagesMax = 100;
/// Most characters of base64 that the images of one prompt have together.
inline constexpr std::size_t kImageCharactersMax = std::size_t{16} << 20;

/// One turn in canonical form: neighbours never share a role, except that a kSystem message may
/// stand anywhere and is rendered where it stands, and that each kTool message is one result.
struct Message {
  Role role = Role::kUser;
  std::string text = {};
  std::string thinking = {};         // kAssistant: comes before `text`.
  std::vector<ToolCall> calls = {};  // kAssistant: come after `text`.
  std::string tool_call_id = {};     // kTool.
  std::string tool_name = {};        // kTool; empty where the call is not in the conversation.
  std::vector<Image> images = {};    // kUser and kTool: in `text`, in order.

  bool operator==(const Message&) const = default;
};

struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // JSON schema of the arguments, as text.
  /// Shown to the model. A deferred tool is not, but may be called once the conversation names it.
  bool shown = true;

  bool operator==(const Tool&) const = default;
};

enum class ToolChoice : std::uint8_t {
  kAuto,   // Text, calls, or both.
  kAny,    // At least one call.
  kNamed,  // A call of AnswerRules::tool_name.
  kNone,   // Text only.
};

/// What the answer may look like. Enforced token by token by engines that sample.
struct AnswerRules {
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_name;       // For kNamed.
  bool parallel_calls = true;  // More than one call in one answer.
  std::string json_schema;     // Not empty: the whole text is one JSON value of this schema.
  /// Most tokens of thoughts in front of the answer. 0: none are wanted, and those of a model that
  /// thinks anyway are closed at once. Models that cannot think ignore it.
  std::uint32_t thinking_tokens_max = 0;
  std::string effort = {};  // "low", "medium", "high"; empty: the model's own.

  bool operator==(const AnswerRules&) const = default;
};

struct Prompt {
  std::vector<Message> messages;
  /// The last message is the assistant's and is continued, not followed by a new turn.
  bool continues_last = false;
  std::vector<Tool> tools = {};
  AnswerRules rules = {};

  bool operator==(const Prompt&) const = default;
};

}  // namespace pensieve::engine
