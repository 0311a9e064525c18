"""600 tool calls that SmolLM2 makes up, over 60 schemas of growing nastiness: all keep theirs.

The model is far too small to know what it does, which is the point: what it may not say, it cannot.
"""

import concurrent.futures

import pytest
import schemas
from harness import SMOLLM2_ID

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
