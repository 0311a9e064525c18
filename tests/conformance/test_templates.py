"""Every chat template that comes with the engine's source, rendered byte for byte as jinja2 does.

template_render is the worker's own code on SmolLM2's vocabulary; the oracle is jinja2, set up as
the models' own library does it. Which spelling of a conversation a template gets is ours to choose
(engine/prompt_forms.h): the first one that it neither refuses nor loses a message of.
"""

import datetime
import json
import os
import pathlib
import subprocess

import harness
import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest

FOLDER = pathlib.Path(os.environ.get("PENSIEVE_TEST_TEMPLATES", "/templates-are-not-set-up"))
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
BOS, EOS = "<|im_start|>", "<|im_end|>"  # SmolLM2's, whose vocabulary is used.

NASTY = "<b>&amp; \"quoted\" 'single' {{ braces }} {% block %} \\n back\\slash\ttab ünï 漢字 🙂"
CONVERSATIONS = {
    "one-question": [("user", "Hi there")],
    "with-system": [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"),
                    ("user", "How are you?")],
    "nasty-text": [("system", NASTY), ("user", NASTY + "\n\n" + NASTY), ("assistant", NASTY),
                   ("user", "end")],
    "late-system": [("user", "Hi"), ("assistant", "Hello!"), ("user", "Go on"),
                    ("system", "It is late.")],
}

TOOLS = [{"name": "get_weather", "description": "The weather in a city.", "parameters": {
    "type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Its \"name\""},
        "days": {"type": "integer", "minimum": 1}}}}]
CALLED = [
    {"role": "user", "content": "What is the weather in Oslo?"},
    {"role": "assistant", "content": "", "calls": [
        {"id": "call00001", "name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}]},
    {"role": "tool", "content": "Rain.", "tool_call_id": "call00001", "name": "get_weather"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "And in Bergen?"}]
WITH_TOOLS = {"offered": CALLED[:1], "called": CALLED[:3], "after": CALLED}

# Templates with which jinja2 itself fails where the engine does not: the reason, and the variables
# that jinja2 gets besides. With them the renderings are the same byte for byte, without them jinja2
# must still fail, or the entry is out of date.
DIFFERENT = {
    "fireworks-ai-llama-3-firefunction-v2": (
        "it adds the variable `functions` to a text, which only its own server defines; what is "
        "not defined is an empty text to the engine and an error to jinja2", {"functions": ""}),
}


class Refused(Exception):
    """The template raised."""


def oracle(source, messages, **more):
    """What jinja2 makes of a template, as transformers' apply_chat_template() sets it up."""

    def raise_exception(message):
        raise Refused(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    now = datetime.datetime.now()
    # Not the immutable one of that library, in which Kimi's templates fail: they append to a list.
    environment = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = now.strftime
    try:
        return environment.from_string(source).render(
            messages=messages, add_generation_prompt=True, enable_thinking=False,
            preserve_thinking=True, clear_thinking=False, truncate_history_thinking=False,
            drop_thinking=False, bos_token=BOS, eos_token=EOS,
            datetime=now.strftime("%b %d %Y"), date_string=now.strftime("%d %b %Y"), **more)
    except (jinja2.TemplateError, TypeError) as error:
        raise Refused(str(error)) from error


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}`, which marks what a training run learns from and renders as its inside."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def keeps_all(form, text):
    """Whether all texts stand there, in their order."""
    at = 0
    for message in form:
        wanted = message["content"].strip(" \t\r\n")
        found = text.find(wanted, at)
        if found < 0:
            return False
        at = found + len(wanted)
    return True


def expected(source, forms, **more):
    """The rendering of the first form that is not refused and loses nothing; else of the first."""
    second_best = None
    for form in forms:
        try:
            text = oracle(source, form, **more)
        except Refused:
            continue
        if keeps_all(form, text):
            return text
        second_best = second_best or text
    return second_best


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """render(template, messages, tools): what template_render answers."""
    home = tmp_path_factory.mktemp("templates")
    model = harness.MODELS / f"{harness.SMOLLM2_ID}.gguf"
    process = subprocess.Popen([str(harness.BUILD / "template_render"), str(model)], cwd=home,
                               env=harness.clean_environment(home), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               preexec_fn=harness.die_with_the_tests)

    def ask(source, messages, tools=()):
        process.stdin.write(json.dumps({"template": source, "messages": messages,
                                        "tools": list(tools)}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "template_render ended"
        return json.loads(line)

    yield ask
    process.stdin.close()
    process.wait(20)


def test_there_are_the_templates_that_the_engine_ships():
    assert len(TEMPLATES) >= 60, f"{len(TEMPLATES)} templates in {FOLDER}"
    assert set(DIFFERENT) <= set(TEMPLATES)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_jinja2_does(render, name, conversation):
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    messages = [{"role": role, "content": text} for role, text in CONVERSATIONS[conversation]]
    answer = render(source, messages)
    more = {}
    if name in DIFFERENT:
        _, more = DIFFERENT[name]
        assert expected(source, answer["forms"]) is None, "take it off the list"
    wanted = expected(source, answer["forms"], **more)
    if wanted is None:
        assert "refuses" in answer["error"]
    else:
        assert answer.get("rendered", answer.get("error")) == wanted


# Templates whose renderings with tools differ, or with which jinja2 fails: the reason. They must
# still differ, and still show the tool, its call and its result.
DIFFERENT_WITH_TOOLS = {
    "CohereForAI-c4ai-command-r-plus-tool_use":
        "it wants tools without the `function` around them, and jinja2 fails without",
    "fireworks-ai-llama-3-firefunction-v2": DIFFERENT["fireworks-ai-llama-3-firefunction-v2"][0],
    "google-gemma-4-31B-it-interleaved":
        "the engine writes results as the model was trained on them, this old template does not",
    "llama-cpp-deepseek-r1": "it gives a generator to tojson, which jinja2 refuses",
    "meetkai-functionary-medium-v3.1":
        "jinja2 escapes what is added to a text that is marked `safe`, the engine does not",
}


def shown_to_jinja(messages, as_object):
    """The messages as the models' library gives them to a template, or with arguments as text."""
    shown = []
    for message in messages:
        shown.append({key: value for key, value in message.items() if key != "calls"})
        if "calls" in message:
            shown[-1]["tool_calls"] = [
                {"type": "function", "id": call["id"], "function": {
                    "name": call["name"], "arguments": call["arguments"] if as_object
                    else json.dumps(call["arguments"], separators=(",", ":"))}}
                for call in message["calls"]]
    return shown


@pytest.mark.parametrize("conversation", WITH_TOOLS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_tools_are_rendered_as_jinja2_does(render, name, conversation):
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    answer = render(source, WITH_TOOLS[conversation], TOOLS)
    functions = [{"type": "function", "function": tool} for tool in TOOLS]
    wanted = [expected(source, [shown_to_jinja(form, as_object) for form in answer["forms"]],
                       tools=functions) for as_object in (True, False)]
    # A template without tools gets them as text, in a system message of ours.
    wanted.append(expected(source, answer["text_forms"]))
    rendered = answer.get("rendered", answer.get("error"))
    if name in DIFFERENT_WITH_TOOLS:
        if conversation == "called":
            assert rendered not in wanted, "no difference: take it off the list"
        assert "Bergen" in rendered or conversation != "after"
        assert "Rain." in rendered or conversation == "offered"
    else:
        assert rendered in wanted
