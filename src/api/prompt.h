// From the `system` and `messages` of a request to the canonical prompt.
#pragma once

#include <expected>
#include <string_view>

#include <boost/json.hpp>

#include "api/json.h"
#include "engine/engine.h"

namespace pensieve::api {

/// The prompt of a request body. Equal content gives an equal prompt, however it is spelled:
///
///  - The top-level `system` is the first kSystem message. Messages of role system stay where they
///    stand: moved to the top, each new one would invalidate every cached prefix.
///  - A line `x-anthropic-billing-header: ...` that opens a system text is dropped; it differs per
///    conversation, and nothing after it could be shared.
///  - Neighbours of one role, system included, are one message. Blocks of a message and merged
///    messages are joined by the same "\n", so [a][b], "a" + "b" and "a\nb" are one prompt.
///  - Tool results of one turn follow the order of the calls before them: clients send them in the
///    order of completion. Those that answer no call of that turn come last, in their own order.
///  - A message without any text or image vanishes. Images stand in the text where they stood
///    among the blocks, and no line break is put next to one.
///  - A last message of the assistant is continued. Its trailing whitespace is stripped, where
///    Anthropic's API refuses it: interrupted turns end so, and a refusal would stop the session.
///
/// `raw` is the text that `body` was parsed from; `sees`: the model reads images. Errors name the
/// field; a prompt without any user or assistant message is one, because chat templates have no
/// form for it.
std::expected<engine::Prompt, Refusal> parse_prompt(const boost::json::object& body,
                                                    std::string_view raw, bool sees);

}  // namespace pensieve::api
