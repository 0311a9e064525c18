"""Sixty JSON schemas of growing nastiness, and how to ask a server for a call that keeps one.

    for name, schema in SCHEMAS:
        assert problems(schema, call(http, model, name, schema, seed=1)) == []
"""

import json

import jsonschema

CALL_TOKENS_MAX = 2000
CALL_SECONDS_MAX = 300  # As many tokens, while the machine has other things to do as well.


def obj(required=None, /, more=False, **properties):
    """An object with these properties, all of them required where `required` is None."""
    return {"type": "object", "properties": properties, "additionalProperties": more,
            "required": list(properties) if required is None else list(required)}


def text(most=24, **more):
    return {"type": "string", "maxLength": most, **more}


def formatted(name):
    return {"type": "string", "format": name}


def whole(least=0, most=1000):
    return {"type": "integer", "minimum": least, "maximum": most}


def array(items, least=0, most=3):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def ref(name):
    return {"$ref": f"#/$defs/{name}"}


def nested(depth):
    """Objects in objects, `depth` of them."""
    return obj(value=whole()) if depth == 0 else obj(label=text(8), inner=nested(depth - 1))


def choices(count):
    """Objects that are told apart by a constant."""
    return [obj(kind={"const": f"kind_{number}"}, **{f"field_{number}": whole()})
            for number in range(count)]


YES, NUMBER, NULL = {"type": "boolean"}, {"type": "number"}, {"type": "null"}

PLAIN = [
    ("no_arguments", {"type": "object", "properties": {}, "additionalProperties": False}),
    ("one_text", obj(path=text(40))),
    ("one_number", obj(amount=NUMBER)),
    ("one_integer", obj(count={"type": "integer"})),
    ("one_flag", obj(recursive=YES)),
    ("one_choice", obj(unit={"type": "string", "enum": ["celsius", "fahrenheit"]})),
    ("one_constant", obj(version={"const": "2.0"})),
    ("nothing", obj(value=NULL)),
    ("optional_only", obj([], path=text(), depth=whole())),
    ("required_and_optional", obj(["path"], path=text(), offset=whole(), limit=whole(1, 50))),
]
COMPOUND = [
    ("list_of_texts", obj(names=array(text(12), 1, 4))),
    ("list_of_numbers", obj(values=array(NUMBER, 2, 4))),
    ("list_of_lists", obj(grid=array(array(whole(0, 9), 2, 3), 2, 3))),
    ("object_in_object", obj(place=obj(city=text(16), country=text(16)))),
    ("list_of_objects", obj(todos=array(obj(
        content=text(30), status={"enum": ["pending", "in_progress", "completed"]}), 1, 3))),
    ("either_type", obj(id={"type": ["string", "integer"], "maxLength": 10})),
    ("text_or_nothing", obj(note={"type": ["string", "null"], "maxLength": 20})),
    ("bounded_numbers", obj(age=whole(0, 120), year=whole(1990, 2030), month=whole(1, 12))),
    ("negative_bounds", obj(celsius=whole(-40, -5), delta=whole(-3, 3))),
    ("fractions", obj(share={"type": "number", "minimum": 0, "maximum": 1},
                      latitude={"type": "number", "minimum": -90, "maximum": 90})),
]
COMBINED = [
    ("any_of", obj(target={"anyOf": [text(12), whole(), NULL]})),
    ("one_of", obj(shape={"oneOf": [obj(radius=whole()), obj(width=whole(), height=whole())]})),
    ("told_apart", obj(action={"anyOf": choices(6)})),
    ("optional_any_of", obj(["a"], a=whole(), b={"anyOf": [obj(x=whole()), array(whole(), 1)]})),
    ("definitions", {**obj(start=ref("point"), end=ref("point")),
                     "$defs": {"point": obj(x=whole(), y=whole())}}),
    ("older_definitions", {**obj(a={"$ref": "#/definitions/size"}),
                           "definitions": {"size": {"enum": ["S", "M", "L"]}}}),
    ("tree", {**obj(root=ref("branch")), "$defs": {
        "branch": obj(label=text(6), twigs=array(ref("twig"), 1, 3)),
        "twig": obj(label=text(6), leaves=array(ref("leaf"), 0, 3)),
        "leaf": {"enum": ["green", "red"]}}}),
    ("nested_lists", {**obj(numbers=ref("list")), "$defs": {
        "list": {"type": "array", "maxItems": 2,
                 "items": {"anyOf": [whole(0, 9), {"type": "array", "items": whole(0, 9),
                                                   "maxItems": 3}]}}}}),
    ("filter_expression", {**obj(where=ref("test")), "$defs": {"test": {"anyOf": [
        obj(field=text(10), equals=text(10)),
        obj(all={"type": "array", "items": ref("test"), "minItems": 1, "maxItems": 2}),
        obj(negated=ref("test"))]}}}),
    ("all_of", obj(range={"allOf": [obj(low=whole(), high=whole())]})),
]
LEXICAL = [
    ("pattern", obj(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"})),
    ("pattern_choices", obj(key={"type": "string", "pattern": "^(foo|bar)(_[a-z]{1,5})?$"})),
    ("pattern_hex", obj(color={"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"})),
    ("dates", obj(day=formatted("date"), moment=formatted("date-time"), at=formatted("time"),
                  length=formatted("duration"))),
    ("identifiers", obj(id=formatted("uuid"), mail=formatted("email"), host=formatted("hostname"),
                        address=formatted("ipv4"))),
    ("exact_length", obj(pin={"type": "string", "minLength": 4, "maxLength": 4})),
    ("quoted_names", obj(**{'say "hi"': text(8), "back\\slash": whole(), "a/b": YES,
                            "new\nline": whole()})),
    ("foreign_names", obj(**{"größe": whole(), "名前": text(8), "🙂": YES})),
    ("awkward_choices", obj(choice={"enum": ["", " ", "\"", "\\", "</tool_call>", "{}", "ü",
                                             "line\nbreak"]})),
    ("mixed_choices", obj(choice={"enum": [1, "1", True, None, 2.5, [1, 2], {"a": "b"}]})),
]
LARGE = [
    ("forty_properties", obj(**{f"property_{number}": whole(0, 9) for number in range(40)})),
    ("forty_optional", obj(["property_7"],
                           **{f"property_{number}": whole(0, 9) for number in range(40)})),
    ("ten_deep", nested(10)),
    ("two_hundred_choices", obj(code={"enum": [f"code-{n * 7919 % 1000:03}"
                                               for n in range(200)]})),
    ("forty_objects_told_apart", obj(event={"anyOf": choices(40)})),
    ("map", obj(labels={"type": "object", "additionalProperties": whole(0, 9),
                        "maxProperties": 3})),
    ("map_of_patterns", obj(env={"type": "object", "additionalProperties": False,
                                 "patternProperties": {"^[A-Z]{1,6}$": text(8)},
                                 "maxProperties": 3})),
    ("fixed_positions", obj(pair={"type": "array", "prefixItems": [text(8), whole(), YES],
                                  "items": False, "minItems": 3, "maxItems": 3})),
    ("long_texts_and_lists", obj(title=text(200, minLength=20),
                                 rows=array(array(whole(0, 99), 5, 5), 6, 8))),
    ("everything", {**obj(
        ["kind", "items", "when"], kind={"enum": ["a", "b"]}, when={"format": "date",
                                                                   "type": "string"},
        items=array({"anyOf": [ref("item"), {"const": "none"}, NULL]}, 1, 3),
        code={"type": "string", "pattern": "^[a-z]{2}[0-9]{2}$"}, extra=ref("map")),
        "$defs": {"item": obj(["id"], id=whole(1, 99), part=ref("item"), tags=array(text(6))),
                  "map": {"type": "object", "additionalProperties": ref("item"),
                          "maxProperties": 2}}}),
]


def part(required=None, /, **properties):
    """An object that does not say whether it has other properties."""
    said = obj(required, **properties)
    del said["additionalProperties"]
    return said


EITHER = {"type": "object", "properties": {"a": whole(), "b": whole()}}
BESIDE = [  # Keywords that mean something together, and older drafts' ways to say so.
    ("any_of_beside_properties", {**EITHER, "additionalProperties": False,
                                  "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    ("one_of_beside_properties", {**EITHER, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    ("branches_with_properties", {
        **part(kind={"enum": ["file", "text"]}), "oneOf": [
            part(kind={"const": "file"}, path=text(12)),
            {"properties": {"kind": {"const": "text"}, "body": text(12)}, "required": ["body"]}]}),
    ("all_of_two", obj(range={"allOf": [part(low=whole(1, 5)), ref("top")]})
     | {"$defs": {"top": part(high=whole(6, 9), low={"maximum": 3})}}),
    ("reference_with_siblings", obj(size=ref("size") | {"maximum": 5, "description": "Small."})
     | {"$defs": {"size": whole(1, 9)}}),
    ("required_without_property", {"type": "object", "properties": {"a": whole(1, 9)},
                                   "required": ["a", "zz"], "maxProperties": 3,
                                   "additionalProperties": whole(1, 9)}),
    ("dependent_names", {**EITHER, "required": ["a"], "dependentRequired": {"a": ["b"]}}),
    ("absent_property", {**obj(["n"], n=whole(1, 9), r=False), "additionalProperties": whole()}),
    ("contained_item", obj(tags=array({"enum": ["a", "b"]}, 1, 3) | {"contains": {"const": "b"}})),
    ("any_root", {"anyOf": [text(8), obj(value=whole())]}),
]
SCHEMAS = PLAIN + COMPOUND + COMBINED + LEXICAL + LARGE + BESIDE


def call(http, model, name, schema, seed):
    """Asks for one call of a tool with this schema; returns its parsed input.

    `http`: an httpx.Client of the server. AssertionError where the answer is no complete call.
    """
    response = http.post("/v1/messages", json={
        "model": model, "max_tokens": CALL_TOKENS_MAX, "temperature": 0.7, "seed": seed,
        "messages": [{"role": "user", "content": f"Call the tool {name} with sensible values."}],
        "tools": [{"name": name, "description": f"Does {name.replace('_', ' ')}.",
                   "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": name, "disable_parallel_tool_use": True}},
        timeout=CALL_SECONDS_MAX)
    assert response.status_code == 200, response.text
    answer = response.json()
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert answer["stop_reason"] == "tool_use" and len(calls) == 1, json.dumps(answer)[:2000]
    assert calls[0]["name"] == name
    return calls[0]["input"]


def problems(schema, value):
    """What is wrong with `value`; an empty list where it keeps the schema, formats included."""
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(value)]
