"""Writes the seeds of a fuzz target into a folder: make_corpus.py request|frame FOLDER.

Requests are bodies as real clients send them, the same that the unit tests use, and one per
feature; frames are one of each type with a payload of its shape, alone and after each other.
"""

import json
import pathlib
import re
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAME_MAGIC, VERSION = 0x4550, 2
PNG = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLv"
       "AAAAAElFTkSuQmCC")  # One pixel.


def image(media_type="image/png", **source):
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": PNG,
                                        **source}}


def image_bodies():
    """Pictures where a client may put them, whole and broken."""
    text = {"type": "text", "text": "Look"}
    base = {"model": "m", "max_tokens": 10}
    for content in (
            [image(), text, image("image/jpeg")], [image(media_type="image/tiff")],
            [image(data="aGk=")], [image(data="aGk")], [image(type="url", url="https://a.example")],
            [text, {"type": "tool_result", "tool_use_id": "toolu_1",
                    "content": [text, image(), text, image("image/webp")]}]):
        yield json.dumps({**base, "messages": [{"role": "user", "content": content}]})
    for url in (f"data:image/png;base64,{PNG}", "data:image/gif;base64,aGk=", "data:,x",
                "https://a.example/b.png"):
        yield json.dumps({**base, "messages": [{"role": "user", "content": [
            text, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]})


def bodies():
    """The JSON texts of the unit tests, and requests that use each field."""
    for path in sorted((ROOT / "src" / "api").rglob("*.[hc]*")):
        text = path.read_text(encoding="utf-8")
        yield from re.findall(r'R"(?:\w*)\((\{.*?\})\)\w*"', text, re.S)
    user = {"role": "user", "content": "Hi"}
    base = {"model": "m", "max_tokens": 10, "messages": [user]}
    tool = {"name": "read", "description": "Reads", "input_schema": {
        "type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}}
    called = [user, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}}]},
              {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                            "is_error": True,
                                            "content": [{"type": "text", "text": "no"}]}]}]
    for more in (
            {}, {"stream": True, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1},
            {"stop_sequences": ["a", "b"], "system": "S"},
            {"system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]},
            {"tools": [tool], "tool_choice": {"type": "tool", "name": "read"}},
            {"tools": [tool | {"defer_loading": True}], "messages": called},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}}},
            {"messages": [user, {"role": "system", "content": "Late"}]},
            {"thread": {"type": "create"}}, {"mcp_servers": []}):
        yield json.dumps(base | more)
    yield from image_bodies()
    yield "limit=20&after_id=a%2Fb&before_id="


def frame(kind, request, payload):
    return struct.pack("<HBBIII", FRAME_MAGIC, VERSION, kind, request, len(payload), 0) + payload


def payloads():
    """Payloads that the tests of the messages write, for any type: the fuzzer sorts them out."""
    yield b""
    source = (ROOT / "src" / "worker" / "messages_test.cc").read_text(encoding="utf-8")
    source += (ROOT / "src" / "worker" / "memory_messages.cc").read_text(encoding="utf-8")
    for text in re.findall(r'R"(?:\w*)\((\{.*?\})\)\w*"', source, re.S):
        yield text.encode()
    fields = re.findall(r'"([a-z_]+)"', (ROOT / "src" / "worker" / "messages.cc").read_text(
        encoding="utf-8") + source)
    yield json.dumps(dict.fromkeys(fields, 1)).encode()
    yield json.dumps(dict.fromkeys(fields, "x")).encode()
    yield json.dumps({name: [{}] for name in fields}).encode()


def frames():
    enum = (ROOT / "src" / "worker" / "frame.h").read_text(encoding="utf-8")
    kinds = [int(number) for number in re.findall(r"\bk\w+ = (\d+),", enum)]
    found = list(payloads())
    for kind in kinds:
        for payload in found:
            yield frame(kind, 7, payload)
    yield b"".join(frame(kind, 0, b"{}") for kind in kinds)
    yield frame(kinds[0], 1, b"{}")[:10]


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [body.encode() for body in bodies()] if name == "request" else list(frames())
    assert len(seeds) > 20, f"only {len(seeds)} seeds: the sources of the corpus are gone"
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number:04}").write_bytes(seed)
    print(len(seeds))


if __name__ == "__main__":
    main()
