"""Embeddings over the wire: OpenAI's SDK, and a real model whose file names a pooling type."""

import base64
import math
import struct

import anthropic
import openai
import pytest
from gguf import with_number
from harness import CALM, MODELS, SMOLLM2_ID, Server, body, floors, wait_until

MODEL = "embed-135m-Q4_1"
MEAN = 1  # llama.cpp's pooling types.
WINDOW = 640  # More than a step of 512 tokens.
TEXTS = ["The cat sleeps on the sofa.", "A kitten naps on the couch.",
         "Interest rates rose again in March."]


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    with_number(MODELS / f"{SMOLLM2_ID}.gguf", folder / f"{MODEL}.gguf",
                "llama.pooling_type", MEAN)
    server = Server(folder / "server", ["--model", folder / f"{MODEL}.gguf",
                                        "--context", str(WINDOW), *CALM],
                    env=floors(0.4, 0.3, 0.2, 0.1))
    yield server
    server.stop()


def client_of(server):
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


@pytest.fixture
def client(embedding):
    return client_of(embedding)


def create(client, texts, **more):
    answer = client.embeddings.create(**{"model": MODEL, "input": texts, **more})
    return [one.embedding for one in answer.data]


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_vectors_have_length_one_and_say_what_texts_have_in_common(client):
    answer = client.embeddings.create(model=MODEL, input=TEXTS)
    assert answer.object == "list" and answer.model == MODEL
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15
    cat, kitten, rates = (one.embedding for one in answer.data)
    for vector in (cat, kitten, rates):
        assert len(vector) == 576
        assert math.isclose(cosine(vector, vector), 1, abs_tol=1e-5)
    assert cosine(cat, kitten) > cosine(cat, rates)


def test_a_text_has_the_same_vector_alone_in_a_list_and_again(client):
    long = " ".join(TEXTS * 25)  # In several steps.
    listed = create(client, [TEXTS[0], long, TEXTS[0]])
    assert listed[0] == listed[2] != listed[1]
    assert create(client, TEXTS[0])[0] == listed[0]
    assert create(client, long)[0] == listed[1]


def test_both_formats_carry_the_same_numbers(embedding):
    answers = [embedding.http.post("/v1/embeddings", json={
        "model": MODEL, "input": TEXTS[0], "encoding_format": form}).json()
        for form in ("float", "base64")]
    floats, text = (answer["data"][0]["embedding"] for answer in answers)
    unpacked = struct.unpack("<576f", base64.b64decode(text))
    assert list(unpacked) == [struct.unpack("<f", struct.pack("<f", number))[0]
                              for number in floats]


def test_token_ids_are_inputs_too(client):
    first, second = create(client, [[1, 2, 3], [3, 2, 1]])
    assert first != second
    assert create(client, [1, 2, 3])[0] == first
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, [10 ** 6])
    assert "token 1000000 is none of this model's" in raised.value.body["message"]


def test_an_input_that_is_too_long_is_refused_with_the_limit(client, embedding):
    words = ["word"] * WINDOW
    assert create(client, " ".join(words))
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, ["short", " ".join([*words, "more"])])
    assert raised.value.body["message"] == (
        f"input.1: input is too long: {WINDOW + 1} tokens > {WINDOW} maximum")
    with pytest.raises(openai.BadRequestError):
        create(client, "x" * (4 << 20))


@pytest.mark.parametrize("change", [{"input": ""}, {"input": []}, {"dimensions": 8},
                                    {"encoding_format": "int8"}])
def test_what_cannot_be_is_a_400(client, change):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(**{"model": MODEL, "input": "x", **change})


def test_such_a_model_does_not_chat(client, embedding):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert "gives embeddings" in raised.value.body["message"]
    with pytest.raises(anthropic.BadRequestError) as refused:
        anthropic.Anthropic(api_key="none", base_url=embedding.url, max_retries=0).messages.create(
            model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Hi"}])
    assert "gives embeddings" in str(refused.value)


def test_models_says_that_it_can(embedding, client):
    create(client, "x")
    model = embedding.http.get(f"/v1/models/{MODEL}").json()
    assert model["max_input_tokens"] == WINDOW
    said = {name: model["capabilities"][name]["supported"]
            for name in ("embeddings", "messages", "batch")}
    assert said == {"embeddings": True, "messages": False, "batch": False}


def test_models_says_of_another_one_that_it_cannot(serve_script):
    server = serve_script()
    server.http.post("/v1/messages", json=body("script: say hi"))
    capabilities = server.http.get("/v1/models/test").json()["capabilities"]
    assert not capabilities["embeddings"]["supported"]
    assert capabilities["messages"]["supported"]


def test_each_input_has_its_look_at_the_memory(embedding, client):
    before = embedding.output().count("[MEMORY BEFORE]")
    create(client, TEXTS)
    wait_until(lambda: embedding.output().count("[MEMORY BEFORE]") == before + 3, 10,
               "three checks in the log")


def test_vectors_are_gone_when_memory_is_short(serve_script, serve_short_of_memory):
    with pytest.raises(openai.InternalServerError) as raised:
        client_of(serve_short_of_memory("Critical", model={"embedding_size": 8})).embeddings.create(
            model="test", input="x")
    assert raised.value.status_code == 503
    assert raised.value.response.headers["retry-after"]
    assert client_of(serve_script(model={"embedding_size": 8})).embeddings.create(
        model="test", input="x").data
