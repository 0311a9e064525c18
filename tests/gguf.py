"""GGUF files for tests: another chat template on the same weights, and a projector for images.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

import math
import random
import struct

STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32  # Where the file does not say.


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length:self.at]

    def skip(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip(inner)
        else:
            self.at += SIZES[kind]

    def head(self):
        """The numbers of tensors and of keys."""
        assert self.number("I") == 0x46554747 and self.number("I") == 3
        return self.number("Q"), self.number("Q")

    def skip_tensors(self, count):
        for _ in range(count):
            self.text()
            for _ in range(self.number("I")):
                self.number("Q")
            self.number("I")
            self.number("Q")


def padded(length):
    return -length % ALIGNMENT


def write_with_weights(target, head, reader):
    """Writes `head` and the weights, before which `reader` stands."""
    weights = reader.data[reader.at + padded(reader.at):]
    target.write_bytes(head + bytes(padded(len(head))) + weights)


def with_chat_template(source, target, template):
    """Writes `source` to `target` with another chat template."""
    data = source.read_bytes()
    reader = Reader(data)
    tensors, keys = reader.head()
    begin = end = None
    for _ in range(keys):
        key, kind = reader.text(), reader.number("I")
        assert key != b"general.alignment"
        value_at = reader.at
        reader.skip(kind)
        if key == b"tokenizer.chat_template":
            begin, end = value_at, reader.at
    reader.skip_tensors(tensors)
    text = template.encode()
    head = data[:begin] + struct.pack("<Q", len(text)) + text + data[end:reader.at]
    write_with_weights(target, head, reader)


def with_number(source, target, key, value):
    """Writes `source` to `target` with one key more."""
    data = source.read_bytes()
    reader = Reader(data)
    tensors, keys = reader.head()
    for _ in range(keys):
        assert reader.text() not in (key.encode(), b"general.alignment")
        reader.skip(reader.number("I"))
    keys_end = reader.at
    reader.skip_tensors(tensors)
    head = (data[:16] + struct.pack("<Q", keys + 1) + data[24:keys_end] + _key(key, value)
            + data[keys_end:reader.at])
    write_with_weights(target, head, reader)


UINT32, FLOAT32, BOOL = 4, 6, 7


def _text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _key(name, value):
    if isinstance(value, bool):
        return _text(name) + struct.pack("<I?", BOOL, value)
    if isinstance(value, str):
        return _text(name) + struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list):
        return _text(name) + struct.pack(f"<IIQ{len(value)}f", ARRAY, FLOAT32, len(value), *value)
    kind, form = (FLOAT32, "f") if isinstance(value, float) else (UINT32, "I")
    return _text(name) + struct.pack("<I" + form, kind, value)


PROJECTOR_TOKENS = {"janus_pro": 16, "gemma3": 4}  # That a picture takes.


def write_projector(target, width, kind="janus_pro"):
    """Writes a projector with random weights for models of `width`: it sees nothing that means
    anything, but another picture is another answer."""
    inner, side, patch = 64, 64, 8 if kind == "gemma3" else 16
    last = {"mm.0.weight": (inner, width), "mm.0.bias": (width,),
            "mm.1.weight": (width, width), "mm.1.bias": (width,)}
    if kind == "gemma3":
        last = {"mm.input_projection.weight": (width, inner), "mm.soft_emb_norm.weight": (inner,)}
    numbers = random.Random(1)
    shapes = {"v.patch_embd.weight": (patch, patch, 3, inner), "v.patch_embd.bias": (inner,),
              "v.position_embd.weight": (inner, (side // patch) ** 2),
              "v.post_ln.weight": (inner,), "v.post_ln.bias": (inner,), **last}
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        shapes |= {f"v.blk.0.{part}.weight": (inner, inner), f"v.blk.0.{part}.bias": (inner,)}
    for part in ("ln1", "ln2"):
        shapes |= {f"v.blk.0.{part}.weight": (inner,), f"v.blk.0.{part}.bias": (inner,)}
    shapes |= {"v.blk.0.ffn_up.weight": (inner, 2 * inner), "v.blk.0.ffn_up.bias": (2 * inner,),
               "v.blk.0.ffn_down.weight": (2 * inner, inner), "v.blk.0.ffn_down.bias": (inner,)}
    keys = {"general.architecture": "clip", "clip.has_vision_encoder": True,
            "clip.projector_type": kind, "clip.use_gelu": True,
            "clip.vision.embedding_length": inner, "clip.vision.attention.head_count": 2,
            "clip.vision.feed_forward_length": 2 * inner, "clip.vision.block_count": 1,
            "clip.vision.projection_dim": width,
            "clip.vision.attention.layer_norm_epsilon": 1e-6, "clip.vision.image_size": side,
            "clip.vision.patch_size": patch, "clip.vision.image_mean": [0.5] * 3,
            "clip.vision.image_std": [0.5] * 3}
    head = struct.pack("<IIQQ", 0x46554747, 3, len(shapes), len(keys))
    head += b"".join(_key(name, value) for name, value in keys.items())
    weights = b""
    for name, shape in shapes.items():
        count = math.prod(shape)
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(weights))
        scale = 0.3 if name.endswith("weight") else 0.1
        values = [scale * numbers.uniform(-1, 1) for _ in range(count)]
        weights += struct.pack(f"<{count}f", *values)
        weights += bytes(padded(len(weights)))
    target.write_bytes(head + bytes(padded(len(head))) + weights)
