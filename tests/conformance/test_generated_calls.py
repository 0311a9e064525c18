"""600 tool calls that SmolLM2 makes up, over 60 schemas of growing nastiness: all keep theirs.

The model is far too small to know what it does, which is the point: what it may not say, it cannot.
"""

import concurrent.futures
import json
import re

import pytest
import schemas
from harness import ROOT, SMOLLM2_ID

SEEDS = range(10)
AT_ONCE = 4  # As many as the server answers at once.


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name, schema", schemas.SCHEMAS, ids=[name for name, _ in schemas.SCHEMAS])
def test_ten_generated_calls_keep_their_schema(smollm2, name, schema):
    def wrong_with(seed):
        given = schemas.call(smollm2.http, SMOLLM2_ID, name, schema, seed=seed)
        return [f"seed {seed}: {problem}: {given!r}" for problem in
                schemas.problems(schema, given)]

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        found = [problem for problems in pool.map(wrong_with, SEEDS) for problem in problems]
    assert not found, "\n".join(found)[:4000]


def test_there_are_as_many_schemas_as_are_promised():
    assert len({name for name, _ in schemas.SCHEMAS}) == len(schemas.SCHEMAS) == 60


FORMATS = {  # Name: a text that has the format, and one that nearly has it.
    "date": ("2024-02-29", "2023-02-29"),
    "date-time": ("2024-02-29T00:00:00Z", "2024-02-29 00:00"),
    "duration": ("P3Y6M4DT12H30M5S", "PT"),
    "email": ("a@b.example", "b.example"),
    "hostname": ("a.b-c.example", "-a.example"),
    "ipv4": ("127.0.0.1", "127.0.0.256"),
    "ipv6": ("::1", "1::2::3"),
    "time": ("23:59:59.5+02:00", "24:00:00Z"),
    "uri": ("https://a.example/b?c#d", "//a.example/b c"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-42661417400g"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_looked_at_where_a_call_is_judged(name):
    """A format that the judge does not know, it lets pass whatever stands there."""
    whole, broken = FORMATS[name]
    schema = schemas.obj(value=schemas.formatted(name))
    assert schemas.problems(schema, {"value": whole}) == []
    assert schemas.problems(schema, {"value": broken})


def test_every_format_that_is_asked_for_or_enforced_is_among_them():
    asked = set(re.findall(r'"format": "([^"]+)"', json.dumps(schemas.SCHEMAS)))
    source = (ROOT / "src" / "engine" / "schema_formats.cc").read_text(encoding="utf-8")
    enforced = set(re.findall(r'format == "([^"]+)"', source))
    assert enforced and asked | enforced <= set(FORMATS)
