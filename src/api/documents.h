// The text of documents and search results that clients put into a conversation.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "api/json.h"

namespace pensieve::api {

inline constexpr std::string_view kCannotRead =
    "this model cannot read documents that are not text";

/// What a `document` says, below its title and context where it has such. Errors: a source that is
/// neither "text" nor a "content" of text blocks, and the type of each field.
std::expected<std::string, Refusal> document_text(const boost::json::object& block);

/// What a `search_result` says, below its title and source. Errors: the type of each field.
std::expected<std::string, Refusal> search_result_text(const boost::json::object& block);

}  // namespace pensieve::api
