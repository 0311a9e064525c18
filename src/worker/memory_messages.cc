#include "worker/memory_messages.h"

#include <boost/json.hpp>

#include "worker/payload_fields.h"

namespace pensieve::worker {
namespace {

namespace json = boost::json;
using Fields = PayloadFields;

}  // namespace

std::string encode(const Limits& limits) {
  return json::serialize(json::object{{"sequences_max", limits.sequences_max},
                                      {"step_tokens_max", limits.step_tokens_max},
                                      {"caches_grow", limits.caches_grow},
                                      {"parked_bytes_max", limits.parked_bytes_max.count()},
                                      {"stored_bytes_max", limits.stored_bytes_max.count()}});
}

Result<Limits> decode_limits(std::string_view payload) {
  return decode_payload<Limits>("limits", payload, [](const Fields& fields) {
    return Limits{.sequences_max = fields.u32("sequences_max"),
                  .step_tokens_max = fields.u32("step_tokens_max"),
                  .caches_grow = fields.flag("caches_grow"),
                  .parked_bytes_max = fields.bytes("parked_bytes_max"),
                  .stored_bytes_max = fields.bytes("stored_bytes_max")};
  });
}

std::string encode(const Resize& resize) {
  return json::serialize(json::object{{"cells", resize.cells}});
}

Result<Resize> decode_resize(std::string_view payload) {
  return decode_payload<Resize>("resize", payload,
                                [](const Fields& fields) { return Resize{fields.u32("cells")}; });
}

std::string encode(const ResizeRefused& refused) {
  json::object object{{"level", static_cast<unsigned>(refused.level)}, {"reason", refused.reason}};
  if (refused.available) object["available"] = refused.available->count();
  return json::serialize(object);
}

Result<ResizeRefused> decode_resize_refused(std::string_view payload) {
  return decode_payload<ResizeRefused>("resize refused", payload, [](const Fields& fields) {
    return ResizeRefused{fields.enumerator("level", memory::Level::kEmergency),
                         fields.optional_bytes("available"), fields.text("reason")};
  });
}

std::string encode(const NeedCells& need) {
  return json::serialize(
      json::object{{"cells_now", need.cells_now}, {"cells_wanted", need.cells_wanted}});
}

Result<NeedCells> decode_need_cells(std::string_view payload) {
  return decode_payload<NeedCells>("need cells", payload, [](const Fields& fields) {
    return NeedCells{fields.u32("cells_now"), fields.u32("cells_wanted")};
  });
}

std::string encode(const Resized& resized) {
  return json::serialize(json::object{{"cells", resized.cells},
                                      {"cells_used", resized.cells_used},
                                      {"dropped_tokens", resized.dropped_tokens}});
}

Result<Resized> decode_resized(std::string_view payload) {
  return decode_payload<Resized>("resized", payload, [](const Fields& fields) {
    return Resized{fields.u32("cells"), fields.u32("cells_used"), fields.u32("dropped_tokens")};
  });
}

}  // namespace pensieve::worker
