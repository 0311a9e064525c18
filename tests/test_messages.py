"""The Messages API on the wire: what a stream and an answer look like, turns, counts, models."""

import json
import re
import time

import harness
import pytest
from harness import ask, body, error_of, stream, streamed_text, streaming, wait_until

ID = re.compile(r"^msg_[0-9A-Za-z]{24}$")


def post(server, content: bytes, headers=""):
    head = (f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}"
            "Connection: close\r\n\r\n")
    return harness.raw(server, head.encode() + content)


def dechunked(payload: bytes) -> bytes:
    out = b""
    while payload:
        size, payload = payload.split(b"\r\n", 1)
        length = int(size, 16)
        out, payload = out + payload[:length], payload[length + 2:]
    return out


# --- the stream -----------------------------------------------------------------------------------

def test_a_stream_has_every_event_once_and_in_order(scripted):
    names = [name for name, _ in stream(scripted, "script: say one two three")]
    texts = [name for name in names if name == "content_block_delta"]
    assert 1 <= len(texts) <= 3
    assert names == ["message_start", "ping", "content_block_start", *texts,
                     "content_block_stop", "message_delta", "message_stop"]


def test_stream_events_have_exactly_the_documented_shapes(scripted):
    by_name = dict(reversed(stream(scripted, "script: say hello")))
    start = by_name["message_start"]["message"]
    assert ID.match(start.pop("id"))
    at_start = start.pop("usage")
    assert at_start.keys() == {"input_tokens", "cache_creation_input_tokens",
                               "cache_read_input_tokens", "output_tokens"}
    assert at_start["output_tokens"] == 1
    assert start == {"type": "message", "role": "assistant", "model": "test", "content": [],
                     "stop_reason": None, "stop_sequence": None}
    assert by_name["ping"] == {"type": "ping"}
    assert by_name["content_block_start"] == {
        "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert by_name["content_block_delta"] == {
        "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
    assert by_name["content_block_stop"] == {"type": "content_block_stop", "index": 0}
    delta = by_name["message_delta"]
    assert delta["type"] == "message_delta"
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    usage = delta["usage"]
    assert usage.keys() >= {"input_tokens", "cache_creation_input_tokens",
                            "cache_read_input_tokens", "output_tokens"}
    assert prompt_tokens(usage) == prompt_tokens(at_start) > 0
    assert by_name["message_stop"] == {"type": "message_stop"}


def test_each_frame_is_an_event_line_a_data_line_and_an_empty_line(scripted):
    content = json.dumps(body("script: say one two", stream=True)).encode()
    head, payload = post(scripted, content).split(b"\r\n\r\n", 1)
    headers = head.decode().lower()
    assert headers.startswith("http/1.1 200 ")
    assert "content-type: text/event-stream" in headers
    assert "cache-control: no-cache" in headers
    assert "content-encoding" not in headers
    if "transfer-encoding: chunked" in headers:
        payload = dechunked(payload)
    frames = payload.decode().removesuffix("\n\n").split("\n\n")
    for frame in frames:
        name, data = re.fullmatch(r"event: (\w+)\ndata: (\{.*\})", frame).groups()
        assert json.loads(data)["type"] == name


def test_message_start_and_a_ping_come_before_the_prompt_is_processed(serve_script):
    server = serve_script(model={"prefill_us_per_token": 20_000})
    prompt = "script: say done; " + "# " * 100  # Two seconds or more of prompt.
    started = time.monotonic()
    with streaming(server, prompt) as all_events:
        assert next(all_events)[0] == "message_start"
        assert next(all_events)[0] == "ping"
        early = time.monotonic() - started
        harness.until_text(all_events)
        late = time.monotonic() - started
    assert early < 0.5 < 1.5 < late


def test_a_silent_stream_gets_pings(serve_script):
    server = serve_script()
    with streaming(server, "script: slow 12000; say done") as all_events:
        names = [name for name, _ in all_events]
    assert names.count("ping") >= 2


def test_a_character_whose_bytes_come_in_two_tokens_is_sent_whole(scripted):
    all_events = stream(scripted, "script: bytes e282; bytes ac; say ok")
    assert streamed_text(all_events) == "€ ok"


# --- the answer -----------------------------------------------------------------------------------

def test_an_answer_in_one_piece_has_exactly_the_documented_shape(scripted):
    message = ask(scripted, "script: say hello world").json()
    assert ID.match(message.pop("id"))
    usage = message.pop("usage")
    assert message == {"type": "message", "role": "assistant", "model": "test",
                       "content": [{"type": "text", "text": "hello world"}],
                       "stop_reason": "end_turn", "stop_sequence": None}
    assert usage["output_tokens"] == 2


def test_a_stream_and_one_piece_say_the_same(scripted):
    prompt = "script: say the same words; repeat 20 again"
    whole, streamed = ask(scripted, prompt).json(), stream(scripted, prompt)
    assert streamed_text(streamed) == whole["content"][0]["text"]
    last = next(data for name, data in streamed if name == "message_delta")
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"] == 23


def test_generation_stops_at_max_tokens(scripted):
    message = ask(scripted, "script: repeat 100 x", max_tokens=7).json()
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 7
    assert message["content"][0]["text"].split() == ["x"] * 7


def test_generation_stops_before_a_stop_sequence(scripted):
    prompt = "script: say one two three four"
    message = ask(scripted, prompt, stop_sequences=["wo th", "zzz"]).json()
    assert message["stop_reason"] == "stop_sequence"
    assert message["stop_sequence"] == "wo th"
    assert message["content"][0]["text"] == "one t"


def test_a_stream_never_shows_a_part_of_a_stop_sequence(scripted):
    all_events = stream(scripted, "script: say one two three four", stop_sequences=["two three"])
    assert streamed_text(all_events) == "one "
    last = next(data for name, data in all_events if name == "message_delta")
    assert last["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "two three"}


def test_a_huge_max_tokens_is_clamped_without_a_word(scripted):
    message = ask(scripted, "script: say ok", max_tokens=128_000).json()
    assert message["stop_reason"] == "end_turn"


def test_the_last_assistant_turn_is_continued_and_not_repeated(smollm2):
    turns = [{"role": "user", "content": "Count from one to ten in digits."},
             {"role": "assistant", "content": "1, 2, 3,"}]
    request = {"model": harness.SMOLLM2_ID, "max_tokens": 12, "temperature": 0}
    continued = smollm2.http.post("/v1/messages", json={**request, "messages": turns}).json()
    text = continued["content"][0]["text"]
    assert text.strip().startswith("4")


# --- turns and counts -----------------------------------------------------------------------------

def prompt_tokens(usage):
    return (usage["input_tokens"] + usage["cache_read_input_tokens"] +
            usage["cache_creation_input_tokens"])


@pytest.mark.parametrize("server_name", ["scripted", "smollm2"])
def test_the_next_turn_reads_what_was_computed_from_the_cache(server_name, request):
    server = request.getfixturevalue(server_name)
    fields = {"model": "claude-anything", "max_tokens": 24, "temperature": 0}
    turns = [{"role": "user", "content": f"Please tell me of {server_name}. " + "Be kind. " * 40}]
    first = server.http.post("/v1/messages", json={**fields, "messages": turns}).json()
    turns += [{"role": "assistant", "content": first["content"]},
              {"role": "user", "content": "And now?"}]
    second = server.http.post("/v1/messages", json={**fields, "messages": turns}).json()
    counted = server.http.post("/v1/messages/count_tokens",
                               json={"model": "claude-anything", "messages": turns}).json()
    usage = second["usage"]
    assert prompt_tokens(usage) == counted["input_tokens"]
    assert usage["cache_read_input_tokens"] >= 0.9 * prompt_tokens(first["usage"])
    assert usage["input_tokens"] < prompt_tokens(usage) - usage["cache_read_input_tokens"] + 1


@pytest.mark.parametrize("server_name", ["scripted", "smollm2"])
def test_count_tokens_is_what_usage_says(server_name, request):
    server = request.getfixturevalue(server_name)
    prompt = {"model": "claude-anything", "system": "Be brief.", "messages": [
        {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": [{"type": "text", "text": "Another one, s'il vous plaît"}]}]}
    counted = server.http.post("/v1/messages/count_tokens", json=prompt).json()
    message = server.http.post("/v1/messages", json={**prompt, "max_tokens": 2}).json()
    assert counted.keys() == {"input_tokens"}
    assert counted["input_tokens"] == prompt_tokens(message["usage"])


def test_counting_does_not_wait_for_a_generation(scripted):
    with streaming(scripted, "script: delay 50; endless x") as all_events:
        harness.until_text(all_events)
        started = time.monotonic()
        for _ in range(5):
            scripted.http.post("/v1/messages/count_tokens", json={
                "model": "test", "messages": [{"role": "user", "content": "hi"}]}).json()
        assert time.monotonic() - started < 2


def test_a_prompt_larger_than_the_window_is_refused_in_the_clients_words(scripted):
    response = ask(scripted, "word " * 6000)
    assert response.status_code == 400
    message = error_of(response)["message"]
    # One token of the window of 4096 is kept for an answer.
    assert re.fullmatch(r"prompt is too long: \d+ tokens > 4095 maximum", message)


def test_four_streams_run_at_once_and_the_fifth_waits(serve_script):
    server = serve_script("--parallel", "4")
    prompt = "script: delay 20; endless x"
    with streaming(server, prompt) as a, streaming(server, prompt) as b, \
            streaming(server, prompt) as c, streaming(server, prompt) as d:
        for running in (a, b, c, d):
            harness.until_text(running)
        wait_until(lambda: server.running_requests() == 4, 5, "four running requests")
        with streaming(server, "script: say waited") as fifth:
            assert next(fifth)[0] == "message_start"
            d.close()
            a.close()
    wait_until(lambda: server.running_requests() == 0, 10, "no running request")


def test_a_full_queue_is_answered_529(serve_script):
    server = serve_script("--parallel", "1", env={"PENSIEVE_SERVER_QUEUE_MAX": "1"})
    with streaming(server, "script: delay 20; endless x") as running:
        harness.until_text(running)
        with streaming(server, "script: say second") as waiting:
            next(waiting)
            response = ask(server, "script: say third")
            assert response.status_code == 529
            assert error_of(response)["type"] == "overloaded_error"
            assert 1 <= int(response.headers["retry-after"]) <= 60


# --- liberal in what is accepted ------------------------------------------------------------------

def test_unknown_fields_betas_headers_and_versions_are_ignored(scripted):
    request = body("script: say fine", not_a_field={"a": [1]}, thinking={"type": "adaptive"},
                   context_management={"edits": []}, output_config={"effort": "high"},
                   metadata={"user_id": "x"}, safeguards=[{"type": "dangerous_tool_use"}])
    for version in ("2023-06-01", "2026-10-21", "1999-01-01", None):
        headers = {"anthropic-beta": "nothing-like-it-2026-01-01,claude-code-20250219",
                   "x-strange": "yes"}
        if version:
            headers["anthropic-version"] = version
        response = scripted.http.post("/v1/messages", json=request, headers=headers)
        assert response.status_code == 200, response.text
        assert response.json()["content"][0]["text"] == "fine"


def test_text_blocks_and_strings_give_the_same_prompt(scripted):
    def count(content, **fields):
        return scripted.http.post("/v1/messages/count_tokens", json={
            "model": "test", "messages": [{"role": "user", "content": content}], **fields}).json()
    block = {"type": "text", "text": "same", "cache_control": {"type": "ephemeral"}}
    assert count("same") == count([block])
    assert count("same", system="s") == count("same", system=[{"type": "text", "text": "s"}])


def test_what_claude_code_sends_inside_messages_is_accepted(scripted):
    turns = [
        {"role": "user", "content": "look"},
        {"role": "system", "content": "a reminder in the middle"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a file"},
            {"type": "text", "text": "script: say seen"}]},
        {"role": "system", "content": [{"type": "text", "text": "and one at the end"}]}]
    response = scripted.http.post("/v1/messages", json={
        "model": "test", "max_tokens": 50, "messages": turns,
        "tools": [{"name": "Bash", "description": "d", "input_schema": {"type": "object"}}]})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", ["claude-opus-5-5", "claude-haiku-4-5-20251001", "claude-x[1m]"])
def test_a_claude_name_is_served_by_the_default_model_under_its_own_name(scripted, name):
    response = scripted.http.post("/v1/messages", json={**body("script: say hi"), "model": name})
    assert response.status_code == 200
    assert response.json()["model"] == name


# --- models ---------------------------------------------------------------------------------------

def test_the_list_of_models_has_the_documented_shape(scripted):
    listing = scripted.http.get("/v1/models?limit=1000").json()
    assert listing["has_more"] is False
    assert listing["data"]
    assert listing["first_id"] == listing["data"][0]["id"]
    assert listing["last_id"] == listing["data"][-1]["id"]
    served = next(model for model in listing["data"] if model["id"] == "test")
    assert served["type"] == "model"
    assert served["display_name"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", served["created_at"])
    assert served["max_input_tokens"] == 4096
    assert served["capabilities"]["thinking"]["types"]["disabled"] == {"supported": True}
    assert served["capabilities"]["image_input"] == {"supported": False}
    # What the engine of this model can do: a script knows no schema, but it has thoughts.
    assert served["capabilities"]["structured_outputs"] == {"supported": False}
    assert served["capabilities"]["thinking"]["types"]["adaptive"] == {"supported": True}
    assert not any(model["id"].startswith("claude-") for model in listing["data"])


def test_models_come_in_pages_that_join_to_the_whole(scripted):
    whole = [model["id"] for model in scripted.http.get("/v1/models").json()["data"]]
    paged, after = [], ""
    while True:
        page = scripted.http.get(f"/v1/models?limit=1{after}").json()
        paged += [model["id"] for model in page["data"]]
        assert len(page["data"]) == 1
        if not page["has_more"]:
            break
        after = f"&after_id={page['last_id']}"
    assert paged == whole


def test_one_model_can_be_asked_for_by_its_name(scripted):
    model = scripted.http.get("/v1/models/test").json()
    assert model == next(entry for entry in scripted.http.get("/v1/models").json()["data"]
                         if entry["id"] == "test")


def test_an_alias_from_the_settings_names_the_model_everywhere(serve_script):
    server = serve_script(env={"PENSIEVE_MODELS_ALIASES": "gpt-4o,my/own"})
    for name in ("gpt-4o", "my/own"):
        assert server.http.get("/v1/models/" + name.replace("/", "%2F")).json()["id"] == "test"
        response = server.http.post("/v1/messages", json={**body("script: say hi"), "model": name})
        assert response.status_code == 200
        assert response.json()["model"] == name
    assert server.http.get("/v1/models/gpt-4").status_code == 404


def test_an_unknown_model_is_not_found_everywhere(scripted):
    for response in (scripted.http.get("/v1/models/some%2Fother:Q4"),
                     scripted.http.post("/v1/messages", json={**body("hi"), "model": "other"})):
        assert response.status_code == 404
        assert error_of(response)["type"] == "not_found_error"
