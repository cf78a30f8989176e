"""The Kafka protocol by hand, in versions that are plain to write: Metadata 4, Produce 3, Fetch 4,
ListOffsets 1, CreateTopics 2, DeleteTopics 1, ApiVersions 0.

    client = Kafka(server.addr("kafka"))
    client.topics_create(["t"])
    client.produce("t", 0, batch([b"one", b"two"]))
    client.fetch("t", 0, 0)
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
CREATE_TOPICS, DELETE_TOPICS = 19, 20
EARLIEST, LATEST = -2, -1

_CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC_TABLE.append(_byte)


class Closed(Exception):
    """The other side closed the socket."""


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = number << 1 ^ number >> 63
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def optional(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(index, value, key=None, headers=()):
    body = (b"\0" + varint(0) + varint(index) + optional(key) + optional(value) +
            varint(len(headers)) +
            b"".join(varint(len(name)) + name + optional(text) for name, text in headers))
    return varint(len(body)) + body


def batch(values, timestamp_ms=None, keys=None, headers=()):
    """A record batch v2 without compression, of now: retention looks at the time that it says."""
    timestamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    records = b"".join(record(i, value, keys[i] if keys else None, headers)
                       for i, value in enumerate(values))
    checked = struct.pack(">HiqqqhiI", 0, len(values) - 1, timestamp_ms, timestamp_ms, -1, -1, -1,
                          len(values)) + records
    return struct.pack(">qiiBI", 0, len(checked) + 9, -1, 2, crc32c(checked)) + checked


def unvarint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at


def records(data):
    """(offset, key, value) of every record in uncompressed batches; a torn last batch is left."""
    found, start = [], 0
    while start + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, start)
        if start + 12 + length > len(data):
            break
        at = start + 61
        for _ in range(struct.unpack_from(">I", data, start + 57)[0]):
            size, at = unvarint(data, at)
            end = at + size
            _, at = unvarint(data, at + 1)
            delta, at = unvarint(data, at)
            pair = []
            for _ in range(2):
                size, at = unvarint(data, at)
                pair.append(None if size < 0 else bytes(data[at:at + size]))
                at += max(size, 0)
            found.append((base + delta, *pair))
            at = end
        start += 12 + length
    return found


def text(word):
    data = word.encode()
    return struct.pack(">h", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def request(api, version, body, correlation=1, client="script"):
    """One framed request with the plain (non-flexible) header."""
    data = struct.pack(">hhi", api, version, correlation) + text(client) + body
    return struct.pack(">i", len(data)) + data


def produce_body(topic, partition, batch_bytes, acks=-1, timeout_ms=30000):
    return (struct.pack(">hhi", -1, acks, timeout_ms) +
            array([text(topic) + array([struct.pack(">ii", partition, len(batch_bytes)) +
                                        batch_bytes])]))


class Answer:
    """Reads a response from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        got = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return got[0] if len(got) == 1 else got

    def bytes(self, size):
        got = self.data[self.at:self.at + max(size, 0)]
        self.at += max(size, 0)
        return got

    def text(self):
        return self.bytes(self.take("h")).decode()


class Kafka:
    def __init__(self, addr, timeout_s=20.0, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(addr)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._correlation = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *pieces):
        self.socket.sendall(b"".join(pieces))

    def receive_bytes(self, count):
        while len(self._buffer) < count:
            try:
                piece = self.socket.recv(1 << 18)
            except ConnectionResetError:
                raise Closed from None
            if not piece:
                raise Closed
            self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def receive(self):
        """(correlation id, Answer) of the next response."""
        data = self.receive_bytes(struct.unpack(">i", self.receive_bytes(4))[0])
        return struct.unpack(">i", data[:4])[0], Answer(data[4:])

    def expect_end(self):
        try:
            while True:
                self.receive_bytes(1)
        except Closed:
            pass

    def call(self, api, version, body):
        self._correlation += 1
        self.send(request(api, version, body, self._correlation))
        correlation, answer = self.receive()
        assert correlation == self._correlation, correlation
        return answer

    # Requests --------------------------------------------------------------------------------------

    def api_versions(self):
        answer = self.call(API_VERSIONS, 0, b"")
        assert answer.take("h") == 0
        return {key: (low, high) for key, low, high in
                (answer.take("hhh") for _ in range(answer.take("i")))}

    def metadata(self, topics, create=False):
        """{topic: (error, partitions)}."""
        answer = self.call(METADATA, 4, array(list(map(text, topics))) + bytes([create]))
        answer.take("i")
        for _ in range(answer.take("i")):
            answer.take("i"), answer.text(), answer.take("i"), answer.text()
        answer.text(), answer.take("i")
        found = {}
        for _ in range(answer.take("i")):
            error, name, _ = answer.take("h"), answer.text(), answer.take("b")
            partitions = answer.take("i")
            for _ in range(partitions):
                answer.take("hii")
                answer.bytes(4 * answer.take("i"))
                answer.bytes(4 * answer.take("i"))
            found[name] = (error, partitions)
        return found

    def topics_create(self, names, partitions=1, configs=None):
        """The error codes, which should be 0."""
        settings = array([text(k) + text(v) for k, v in (configs or {}).items()])
        answer = self.call(CREATE_TOPICS, 2, array(
            [text(name) + struct.pack(">ih", partitions, 1) + array([]) + settings
             for name in names]) + struct.pack(">i?", 30000, False))
        answer.take("i")
        errors = []
        for _ in range(answer.take("i")):
            answer.text()
            errors.append(answer.take("h"))
            answer.text()
        return errors

    def topics_delete(self, names):
        answer = self.call(DELETE_TOPICS, 1, array(list(map(text, names))) +
                           struct.pack(">i", 30000))
        answer.take("i")
        return [(answer.text(), answer.take("h"))[1] for _ in range(answer.take("i"))]

    @staticmethod
    def produce_answer(answer):
        """(error, base offset) of the one partition asked for."""
        answer.take("i"), answer.text(), answer.take("i")
        _, error, offset, _ = answer.take("ihqq")
        return error, offset

    def produce(self, topic, partition, batch_bytes, acks=-1, timeout_ms=30000):
        return self.produce_answer(
            self.call(PRODUCE, 3, produce_body(topic, partition, batch_bytes, acks, timeout_ms)))

    def fetch(self, topic, partition, offset, max_wait_ms=500, min_bytes=1, max_bytes=50 << 20):
        """(error, high watermark, batches as bytes)."""
        answer = self.call(FETCH, 4, struct.pack(">iiiib", -1, max_wait_ms, min_bytes, max_bytes,
                                                 0) +
                           array([text(topic) +
                                  array([struct.pack(">iqi", partition, offset, max_bytes)])]))
        answer.take("i"), answer.take("i"), answer.text(), answer.take("i")
        _, error, high, _ = answer.take("ihqq")
        answer.bytes(16 * answer.take("i"))
        return error, high, answer.bytes(answer.take("i"))

    def fetch_all(self, topic, partition=0):
        """(offset, key, value) of every record."""
        found, offset = [], 0
        while True:
            error, high, data = self.fetch(topic, partition, offset, max_wait_ms=0)
            assert error == 0, error
            got = [item for item in records(data) if item[0] >= offset]
            found += got
            if got:
                offset = got[-1][0] + 1
            if offset >= high:
                return found
            assert got, f"nothing at {offset} below {high}"

    def offset(self, topic, partition, timestamp):
        answer = self.call(LIST_OFFSETS, 1, struct.pack(">i", -1) +
                           array([text(topic) + array([struct.pack(">iq", partition, timestamp)])]))
        answer.take("i"), answer.text(), answer.take("i")
        _, error, _, offset = answer.take("ihqq")
        assert error == 0, error
        return offset
