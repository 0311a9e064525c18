#include "worker/messages.h"

#include <stdexcept>

#include <boost/json.hpp>

#include "worker/payload_fields.h"
#include "worker/prompt_json.h"

namespace pensieve::worker {
namespace {

namespace json = boost::json;

using Fields = PayloadFields;

json::object to_json(const engine::Capabilities& capabilities) {
  return {{"structured_outputs", capabilities.structured_outputs},
          {"thinking", capabilities.thinking},
          {"image_input", capabilities.image_input},
          {"embeddings", capabilities.embeddings}};
}

engine::Capabilities capabilities_from(const Fields& fields) {
  return {.structured_outputs = fields.flag("structured_outputs"),
          .thinking = fields.flag("thinking"),
          .image_input = fields.flag("image_input"),
          .embeddings = fields.flag("embeddings")};
}

}  // namespace

std::string encode(const Hello& hello) {
  json::array protections;
  for (const Protection& protection : hello.protections) {
    protections.push_back(json::object{{"name", protection.name},
                                       {"holds", protection.holds},
                                       {"detail", protection.detail},
                                       {"remedy", protection.remedy}});
  }
  return json::serialize(json::object{{"engine", hello.engine},
                                      {"version", hello.version},
                                      {"protections", std::move(protections)}});
}

Result<Hello> decode_hello(std::string_view payload) {
  return decode_payload<Hello>("hello", payload, [](const Fields& fields) {
    Hello hello{fields.text("engine"), fields.text("version")};
    for (const json::value& item : fields.at("protections").as_array()) {
      const Fields protection(item);
      hello.protections.push_back({protection.text("name"), protection.flag("holds"),
                                   protection.text("detail"), protection.text("remedy")});
    }
    return hello;
  });
}

std::string encode(const engine::LoadOptions& options) {
  return json::serialize(json::object{{"model_path", options.model_path},
                                      {"projector_path", options.projector_path},
                                      {"context_tokens", options.context_tokens},
                                      {"cells", options.cells},
                                      {"cells_max", options.cells_max},
                                      {"sequences_max", options.sequences_max},
                                      {"step_tokens_max", options.step_tokens_max},
                                      {"threads", options.threads}});
}

Result<engine::LoadOptions> decode_load_options(std::string_view payload) {
  return decode_payload<engine::LoadOptions>("load", payload, [](const Fields& fields) {
    engine::LoadOptions options;
    options.model_path = fields.text("model_path");
    options.projector_path = fields.text("projector_path");
    options.context_tokens = fields.u32("context_tokens");
    options.cells = fields.u32("cells");
    options.cells_max = fields.u32("cells_max");
    options.sequences_max = fields.u32("sequences_max");
    options.step_tokens_max = fields.u32("step_tokens_max");
    options.threads = fields.u32("threads");
    return options;
  });
}

std::string encode(const engine::Plan& plan) {
  const engine::MemoryEstimate& estimate = plan.estimate;
  return json::serialize(json::object{{"weights_mapped", estimate.weights_mapped.count()},
                                      {"weights_copied", estimate.weights_copied.count()},
                                      {"kv", estimate.kv.count()},
                                      {"compute", estimate.compute.count()},
                                      {"process", estimate.process.count()},
                                      {"images", estimate.images.count()},
                                      {"grammars", estimate.grammars.count()},
                                      {"context_tokens", plan.context_tokens},
                                      {"context_train_tokens", plan.context_train_tokens},
                                      {"cells", plan.cells},
                                      {"resize_copy", plan.resize_copy.count()}});
}

Result<engine::Plan> decode_plan(std::string_view payload) {
  return decode_payload<engine::Plan>("plan", payload, [](const Fields& fields) {
    engine::Plan plan;
    plan.estimate.weights_mapped = fields.bytes("weights_mapped");
    plan.estimate.weights_copied = fields.bytes("weights_copied");
    plan.estimate.kv = fields.bytes("kv");
    plan.estimate.compute = fields.bytes("compute");
    plan.estimate.process = fields.bytes("process");
    plan.estimate.images = fields.bytes("images");
    plan.estimate.grammars = fields.bytes("grammars");
    plan.context_tokens = fields.u32("context_tokens");
    plan.context_train_tokens = fields.u32("context_train_tokens");
    plan.cells = fields.u32("cells");
    plan.resize_copy = fields.bytes("resize_copy");
    return plan;
  });
}

std::string encode(const engine::ModelInfo& info) {
  return json::serialize(json::object{{"description", info.description},
                                      {"context_tokens", info.context_tokens},
                                      {"context_train_tokens", info.context_train_tokens},
                                      {"cells", info.cells},
                                      {"capabilities", to_json(info.capabilities)}});
}

Result<engine::ModelInfo> decode_model_info(std::string_view payload) {
  return decode_payload<engine::ModelInfo>("loaded", payload, [](const Fields& fields) {
    engine::ModelInfo info;
    info.description = fields.text("description");
    info.context_tokens = fields.u32("context_tokens");
    info.context_train_tokens = fields.u32("context_train_tokens");
    info.cells = fields.u32("cells");
    info.capabilities = capabilities_from(Fields(fields.at("capabilities")));
    return info;
  });
}

std::string encode(const engine::Prompt& prompt) {
  return json::serialize(json::object{{"prompt", to_json(prompt)}});
}

Result<engine::Prompt> decode_prompt(std::string_view payload) {
  return decode_payload<engine::Prompt>(
      "count", payload, [](const Fields& fields) { return prompt_from(fields.at("prompt")); });
}

std::string encode(const GenerateRequest& request) {
  json::array stops;
  for (const std::string& stop : request.stop_sequences) stops.push_back(json::string(stop));
  json::object sampling;
  if (request.sampling.temperature) sampling["temperature"] = *request.sampling.temperature;
  if (request.sampling.top_p) sampling["top_p"] = *request.sampling.top_p;
  if (request.sampling.top_k) sampling["top_k"] = *request.sampling.top_k;
  if (request.sampling.seed) sampling["seed"] = *request.sampling.seed;
  return json::serialize(json::object{{"prompt", to_json(request.prompt)},
                                      {"output_tokens_max", request.output_tokens_max},
                                      {"stop_sequences", std::move(stops)},
                                      {"sampling", std::move(sampling)}});
}

Result<GenerateRequest> decode_generate_request(std::string_view payload) {
  return decode_payload<GenerateRequest>("generate", payload, [](const Fields& fields) {
    GenerateRequest request;
    request.prompt = prompt_from(fields.at("prompt"));
    request.output_tokens_max = fields.u32("output_tokens_max");
    for (const json::value& stop : fields.at("stop_sequences").as_array()) {
      if (stop.as_string().empty()) throw std::invalid_argument("an empty stop sequence");
      request.stop_sequences.emplace_back(stop.as_string());
    }
    const Fields sampling(fields.at("sampling"));
    request.sampling.temperature = sampling.optional<float>("temperature");
    request.sampling.top_p = sampling.optional<float>("top_p");
    request.sampling.top_k = sampling.optional<std::int32_t>("top_k");
    request.sampling.seed = sampling.optional<std::uint32_t>("seed");
    return request;
  });
}

std::string encode(const Accepted& accepted) {
  return json::serialize(json::object{{"input_tokens", accepted.input_tokens}});
}

Result<Accepted> decode_accepted(std::string_view payload) {
  return decode_payload<Accepted>("accepted", payload, [](const Fields& fields) {
    return Accepted{fields.u32("input_tokens")};
  });
}

std::string encode(const Started& started) {
  return json::serialize(json::object{{"cached_tokens", started.cached_tokens}});
}

Result<Started> decode_started(std::string_view payload) {
  return decode_payload<Started>("started", payload, [](const Fields& fields) {
    return Started{fields.u32("cached_tokens")};
  });
}

std::string encode(const Done& done) {
  return json::serialize(json::object{{"cause", static_cast<unsigned>(done.cause)},
                                      {"stop_sequence", done.stop_sequence},
                                      {"output_tokens", done.output_tokens},
                                      {"thinking_tokens", done.thinking_tokens},
                                      {"prefill_seconds", done.prefill_seconds},
                                      {"decode_seconds", done.decode_seconds}});
}

Result<Done> decode_done(std::string_view payload) {
  return decode_payload<Done>("done", payload, [](const Fields& fields) {
    return Done{fields.enumerator("cause", StopCause::kWindowFull),
                fields.text("stop_sequence"),
                fields.u32("output_tokens"),
                fields.u32("thinking_tokens"),
                fields.number("prefill_seconds"),
                fields.number("decode_seconds")};
  });
}

std::string encode(const Failed& failed) {
  return json::serialize(
      json::object{{"code", static_cast<unsigned>(failed.code)}, {"message", failed.message}});
}

Result<Failed> decode_failed(std::string_view payload) {
  return decode_payload<Failed>("failed", payload, [](const Fields& fields) {
    return Failed{fields.enumerator("code", Code::kInternal), fields.text("message")};
  });
}

std::string encode(const Refused& refused) {
  json::object object{{"level", static_cast<unsigned>(refused.level)}, {"reason", refused.reason}};
  if (refused.available) object["available"] = refused.available->count();
  return json::serialize(object);
}

Result<Refused> decode_refused(std::string_view payload) {
  return decode_payload<Refused>("refused", payload, [](const Fields& fields) {
    return Refused{fields.enumerator("level", memory::Level::kEmergency),
                   fields.optional_bytes("available"), fields.text("reason")};
  });
}

std::string encode(const Counted& counted) {
  return json::serialize(json::object{{"input_tokens", counted.input_tokens}});
}

Result<Counted> decode_counted(std::string_view payload) {
  return decode_payload<Counted>(
      "counted", payload, [](const Fields& fields) { return Counted{fields.u32("input_tokens")}; });
}

std::string encode(const Cleared& cleared) {
  return json::serialize(json::object{{"dropped_tokens", cleared.dropped_tokens},
                                      {"freed", cleared.freed.count()},
                                      {"stored", cleared.stored.count()}});
}

Result<Cleared> decode_cleared(std::string_view payload) {
  return decode_payload<Cleared>("cleared", payload, [](const Fields& fields) {
    return Cleared{fields.u32("dropped_tokens"), fields.bytes("freed"), fields.bytes("stored")};
  });
}

json::object to_json(const PrefixStats& prefixes) {
  return {{"stored_bytes", prefixes.stored_bytes.count()},
          {"parked", prefixes.parked},
          {"stored", prefixes.stored},
          {"hits", prefixes.hits},
          {"misses", prefixes.misses},
          {"spilled", prefixes.spilled},
          {"dropped", prefixes.dropped},
          {"corrupt", prefixes.corrupt},
          {"disk_failing", prefixes.disk_failing}};
}

namespace {

PrefixStats prefixes_of(const Fields& fields) {
  return {.stored_bytes = fields.bytes("stored_bytes"),
          .parked = fields.u32("parked"),
          .stored = fields.u32("stored"),
          .hits = fields.bytes("hits").count(),
          .misses = fields.bytes("misses").count(),
          .spilled = fields.bytes("spilled").count(),
          .dropped = fields.bytes("dropped").count(),
          .corrupt = fields.bytes("corrupt").count(),
          .disk_failing = fields.flag("disk_failing")};
}

}  // namespace

std::string encode(const Heartbeat& heartbeat) {
  return json::serialize(json::object{{"running", heartbeat.running},
                                      {"waiting", heartbeat.waiting},
                                      {"cached_tokens", heartbeat.cached_tokens},
                                      {"cells", heartbeat.cells},
                                      {"cells_used", heartbeat.cells_used},
                                      {"resident", heartbeat.resident.count()},
                                      {"anonymous", heartbeat.anonymous.count()},
                                      {"parked_bytes", heartbeat.parked_bytes.count()},
                                      {"prefixes", to_json(heartbeat.prefixes)}});
}

Result<Heartbeat> decode_heartbeat(std::string_view payload) {
  return decode_payload<Heartbeat>("heartbeat", payload, [](const Fields& fields) {
    return Heartbeat{fields.u32("running"),
                     fields.u32("waiting"),
                     fields.u32("cached_tokens"),
                     fields.u32("cells"),
                     fields.u32("cells_used"),
                     fields.bytes("resident"),
                     fields.bytes("anonymous"),
                     fields.bytes("parked_bytes"),
                     prefixes_of(Fields(fields.at("prefixes")))};
  });
}

}  // namespace pensieve::worker
