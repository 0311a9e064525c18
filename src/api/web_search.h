// The web search that a client leaves to its server: there is none here, and the answer says so in
// the form that clients read.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include <boost/json.hpp>

#include "engine/engine.h"

namespace pensieve::api {

/// Longest query of an answer; what the client said beyond it is left out.
inline constexpr std::size_t kQueryBytesMax = 1024;

/// Whether all tools of a request are web searches of the server, of which there is at least one.
bool only_searches(const boost::json::object& body);

/// The query of the search that failed: what the user said last, where only_searches(), the tools
/// may be called, and the answer begins a new turn. The model is told as well then, by a system
/// message at the end of `prompt`: it must not make results up.
std::optional<std::string> failed_search(const boost::json::object& body, engine::Prompt& prompt);

}  // namespace pensieve::api
