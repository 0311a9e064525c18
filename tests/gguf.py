"""Changes the chat template of a GGUF file: the same weights as another kind of model.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

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


def padded(length):
    return -length % ALIGNMENT


def with_chat_template(source, target, template):
    """Writes `source` to `target` with another chat template."""
    data = source.read_bytes()
    reader = Reader(data)
    assert reader.number("I") == 0x46554747 and reader.number("I") == 3
    tensors, keys = reader.number("Q"), reader.number("Q")
    begin = end = None
    for _ in range(keys):
        key, kind = reader.text(), reader.number("I")
        assert key != b"general.alignment"
        value_at = reader.at
        reader.skip(kind)
        if key == b"tokenizer.chat_template":
            begin, end = value_at, reader.at
    for _ in range(tensors):
        reader.text()
        for _ in range(reader.number("I")):
            reader.number("Q")
        reader.number("I")
        reader.number("Q")
    text = template.encode()
    head = data[:begin] + struct.pack("<Q", len(text)) + text + data[end:reader.at]
    weights = data[reader.at + padded(reader.at):]
    target.write_bytes(head + bytes(padded(len(head))) + weights)
