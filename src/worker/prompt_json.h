// A prompt as JSON, for the frames that carry one.
#pragma once

#include <boost/json.hpp>

#include "engine/engine.h"

namespace pensieve::worker {

boost::json::object to_json(const engine::Prompt& prompt);

/// Throws what PayloadFields throws where `value` is no prompt; decode_payload() makes it an error.
engine::Prompt prompt_from(const boost::json::value& value);

}  // namespace pensieve::worker
