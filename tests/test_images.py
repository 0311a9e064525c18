"""Images over the wire: a real model with a made-up projector, and models that cannot see."""

import base64
import json
import struct
import zlib

import anthropic
import openai
import pytest
from gguf import PROJECTOR_TOKENS, write_projector
from harness import CALM, GEMMA, MODELS, SMOLLM2_ID, Server, floors, run

WIDTH = 576  # Of SmolLM2-135M.
MODEL = "vlm-135m-Q4_1"
TOKENS = PROJECTOR_TOKENS["janus_pro"]
GREEDY = {"temperature": 0}


def png(shade, side=40):
    """A grey square."""
    rows = b"".join(b"\0" + bytes([shade]) * side for _ in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def image(file, media_type="image/png"):
    data = base64.b64encode(file).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def text(words):
    return {"type": "text", "text": words}


def question(*blocks):
    return {"role": "user", "content": [*blocks, text("What is it?")]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model and its projector, as a download has them."""
    folder = tmp_path_factory.mktemp("vlm")
    (folder / "vlm-135m-Q4_1.gguf").symlink_to(MODELS / f"{SMOLLM2_ID}.gguf")
    write_projector(folder / "mmproj-vlm-135m-f32.gguf", WIDTH)
    return folder


@pytest.fixture(scope="module")
def seeing(folder, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"),
                    ["--model", folder / "vlm-135m-Q4_1.gguf", "--context", "2048", *CALM],
                    env=floors(0.4, 0.3, 0.2, 0.1))
    yield server
    server.stop()


@pytest.fixture
def client(seeing):
    return anthropic.Anthropic(api_key="not-a-real-key", base_url=seeing.url, max_retries=0)


def create(client, messages, **more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 8, "messages": messages,
                                     "extra_body": GREEDY, **more})


def tokens_of(usage):
    return usage.input_tokens + usage.cache_read_input_tokens


def test_an_image_is_part_of_the_prompt(client):
    without = create(client, [question()])
    dark = create(client, [question(image(png(0)))])
    assert tokens_of(dark.usage) == tokens_of(without.usage) + TOKENS
    light = create(client, [question(image(png(255)))])
    assert dark.content[0].text != light.content[0].text
    again = create(client, [question(image(png(0)))])
    assert again.content[0].text == dark.content[0].text
    assert again.usage.cache_read_input_tokens > TOKENS
    counted = client.messages.count_tokens(model=MODEL, messages=[question(image(png(0)))])
    assert counted.input_tokens == tokens_of(dark.usage)


def test_the_next_turn_goes_on_behind_the_image(client):
    messages = [question(image(png(90)), image(png(91)))]
    first = create(client, messages)
    messages += [{"role": "assistant", "content": first.content},
                 {"role": "user", "content": "And now?"}]
    second = create(client, messages)
    assert second.usage.cache_read_input_tokens >= tokens_of(first.usage) - 1


def test_a_stream_with_an_image(client):
    with client.messages.stream(model=MODEL, max_tokens=8, extra_body=GREEDY,
                                messages=[question(image(png(30)))]) as stream:
        streamed = "".join(stream.text_stream)
    assert streamed == create(client, [question(image(png(30)))]).content[0].text != ""


def test_an_image_in_a_tool_result(client):
    def messages(*blocks):
        return [{"role": "user", "content": "Take a picture."},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "toolu_1", "name": "Camera", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1",
                     "content": [text("taken"), *blocks]}]}]

    tools = [{"name": "Camera", "input_schema": {"type": "object", "properties": {}}}]
    without = create(client, messages(), tools=tools)
    seen = create(client, messages(image(png(60))), tools=tools)
    assert tokens_of(seen.usage) == tokens_of(without.usage) + TOKENS


def test_what_is_no_image_is_a_400_and_the_worker_lives_on(client, seeing):
    worker = seeing.worker()
    whole = png(7, 64)
    for block, why in [
            (image(b"no picture"), "messages.0.content.0.source.data: the data is no PNG"),
            (image(whole, "image/jpeg"), "specified as image/jpeg, but appears to be image/png"),
            (image(whole[:60]), "messages.0.content.0.source.data: the image is broken"),
            (image(b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), "image/webp cannot be read"),
            (image(whole, "image/bmp"), "messages.0.content.0.source.media_type"),
            (image(png(7, 9000)), "scale it down"),
            ({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
             "messages.0.content.0.source.type")]:
        for stream in (False, True):
            with pytest.raises(anthropic.BadRequestError) as refused:
                create(client, [question(block)], stream=stream)
            assert why in refused.value.message
    assert create(client, [question(image(whole))]).usage.output_tokens > 0
    assert seeing.worker() == worker


def test_the_model_says_that_it_sees(client, seeing):
    assert client.models.list().data[0].capabilities.image_input.supported is True
    estimate = seeing.http.get("/v1/pensieve/ps").json()["models"][0]
    assert estimate["state"] == "ready"


def test_openai_clients_send_images_too(seeing):
    client = openai.OpenAI(api_key="not-a-real-key", base_url=seeing.url + "/v1", max_retries=0)
    address = "data:image/png;base64," + base64.b64encode(png(0)).decode()

    def ask(url):
        return client.chat.completions.create(
            model=MODEL, max_tokens=8, temperature=0, messages=[{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": url}}, text("What is it?")]}])

    assert ask(address).usage.prompt_tokens > TOKENS
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        ask("https://example.com/a.png")


def test_gemma_looks_at_a_picture_as_a_whole(serve, tmp_path):
    projector = tmp_path / "mmproj.gguf"
    write_projector(projector, 640, "gemma3")
    server = serve("--model", MODELS / f"{GEMMA}.gguf", "--mmproj", projector, "--context", "2048",
                   *CALM, env=floors(0.4, 0.3, 0.2, 0.1))
    client = anthropic.Anthropic(api_key="not-a-real-key", base_url=server.url, max_retries=0)
    dark, again, light = (create(client, [question(image(png(shade)))], model=GEMMA, max_tokens=16)
                          for shade in (0, 0, 255))
    assert dark.content[0].text == again.content[0].text != light.content[0].text
    assert again.usage.cache_read_input_tokens > PROJECTOR_TOKENS["gemma3"]
    without = create(client, [question()], model=GEMMA)
    assert tokens_of(dark.usage) >= tokens_of(without.usage) + PROJECTOR_TOKENS["gemma3"]


def test_a_model_without_a_projector_refuses_images(smollm2):
    client = anthropic.Anthropic(api_key="not-a-real-key", base_url=smollm2.url, max_retries=0)
    with pytest.raises(anthropic.BadRequestError, match="this model cannot read images"):
        create(client, [question(image(png(0)))], model=SMOLLM2_ID)
    assert client.models.list().data[0].capabilities.image_input.supported is False


def test_a_projector_that_does_not_fit_ends_the_start_and_says_what_to_do(folder, tmp_path):
    write_projector(tmp_path / "narrow.gguf", 512)
    ended = run(tmp_path, "serve", "--port", "0", "--model", folder / "vlm-135m-Q4_1.gguf",
                "--mmproj", tmp_path / "narrow.gguf", "--context", "1024",
                env=floors(0.4, 0.3, 0.2, 0.1))
    assert ended.returncode == 4
    assert "mismatch between text model (n_embd = 576) and mmproj (n_embd = 512)" in ended.stderr
    assert 'to "none" to run the model without images' in ended.stderr


def test_the_plan_has_a_part_for_images(folder, tmp_path):
    def images(*arguments):
        ended = run(tmp_path, "plan", folder / "vlm-135m-Q4_1.gguf", "--json", *arguments,
                    env={"PENSIEVE_PORT": "1"})
        return json.loads(ended.stdout)["estimate"]["image_bytes"]

    assert images() > 100 << 20
    assert images("--mmproj", "none") == 0
