"""AMQP 0-9-1 by hand: frames in, frames out, nothing behind the test's back.

    client = Amqp.login(server.addr("amqp"))
    client.channel_open(1)
    client.queue_declare(1, "q", durable=True)
    client.publish(1, "", "q", b"body")
"""

import socket
import struct

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
HELLO = b"AMQP\x00\x00\x09\x01"
EVERYTHING = {"capabilities": {"authentication_failure_close": True, "basic.nack": True,
                               "consumer_cancel_notify": True, "publisher_confirms": True,
                               "connection.blocked": True}}

START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
BLOCKED, UNBLOCKED = (10, 60), (10, 61)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
QUEUE_PURGE, QUEUE_PURGE_OK = (50, 30), (50, 31)
QUEUE_DELETE, QUEUE_DELETE_OK = (50, 40), (50, 41)
QOS, QOS_OK, CONSUME, CONSUME_OK = (60, 10), (60, 11), (60, 20), (60, 21)
CANCEL, CANCEL_OK = (60, 30), (60, 31)
PUBLISH, RETURN, DELIVER = (60, 40), (60, 50), (60, 60)
GET, GET_OK, GET_EMPTY, ACK, NACK = (60, 70), (60, 71), (60, 72), (60, 80), (60, 120)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)


class Closed(Exception):
    """The other side closed the socket."""


# Words of the protocol -----------------------------------------------------------------------------


def short(text):
    data = text if isinstance(text, bytes) else text.encode()
    return bytes([len(data)]) + data


def long(data):
    data = data if isinstance(data, bytes) else data.encode()
    return struct.pack(">I", len(data)) + data


def value(item):
    if isinstance(item, bool):
        return b"t" + bytes([item])
    if isinstance(item, int):
        return b"l" + struct.pack(">q", item)
    if isinstance(item, dict):
        return b"F" + table(item)
    if isinstance(item, list):
        return b"A" + long(b"".join(map(value, item)))
    return b"S" + long(item)


def table(items):
    return long(b"".join(short(name) + value(item) for name, item in items.items()))


def frame(kind, channel, payload, end=END):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def method(channel, name, arguments=b""):
    return frame(METHOD, channel, struct.pack(">HH", *name) + arguments)


def content(channel, body, delivery_mode=None, frame_max=131072):
    flags, properties = (0, b"") if delivery_mode is None else (1 << 12, bytes([delivery_mode]))
    header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
    step = frame_max - 8
    return frame(HEADER, channel, header) + b"".join(
        frame(BODY, channel, body[at:at + step]) for at in range(0, len(body), step))


def publish(channel, exchange, key, body, mandatory=False, **properties):
    """The frames of one message."""
    return method(channel, PUBLISH, struct.pack(">H", 0) + short(exchange) + short(key) +
                  bytes([mandatory])) + content(channel, body, **properties)


def start_ok(user="guest", password="guest", properties=None):
    return method(0, START_OK, table(EVERYTHING if properties is None else properties) +
                  short("PLAIN") + long(f"\0{user}\0{password}") + short("en_US"))


def tune_ok(channel_max, frame_max, heartbeat):
    return method(0, TUNE_OK, struct.pack(">HIH", channel_max, frame_max, heartbeat))


def open_(vhost="/"):
    return method(0, OPEN, short(vhost) + short("") + b"\0")


# A connection --------------------------------------------------------------------------------------


class Amqp:
    def __init__(self, addr, timeout_s=20.0, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(addr)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.other = []  # methods that came while another was awaited

    @classmethod
    def login(cls, addr, heartbeat=0, channel=None, **options):
        self = cls(addr, **options)
        try:
            self.send(HELLO)
            self.expect(START)
            self.send(start_ok())
            channel_max, frame_max, _ = struct.unpack(">HIH", self.expect(TUNE))
            self.send(tune_ok(channel_max, frame_max, heartbeat), open_())
            self.expect(OPEN_OK)
            if channel is not None:
                self.channel_open(channel)
        except BaseException:
            self.socket.close()
            raise
        return self

    def close(self):
        """At once, without a word."""
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
        """(type, channel, payload) of the next frame but heartbeats."""
        while True:
            kind, channel, size = struct.unpack(">BHI", self.receive_bytes(7))
            payload = self.receive_bytes(size)
            assert self.receive_bytes(1) == END, "frame end octet"
            if kind != HEARTBEAT:
                return kind, channel, payload

    def expect(self, *names):
        """The arguments of the next method, which must be one of these; with several, (name,
        arguments). connection.blocked and unblocked in between go to self.other."""
        while True:
            kind, _, payload = self.receive()
            got = struct.unpack(">HH", payload[:4]) if kind == METHOD else None
            if got in (BLOCKED, UNBLOCKED) and got not in names:
                self.other.append(got)
                continue
            break
        assert got in names, f"{got} {payload[4:]!r} instead of {names}"
        return payload[4:] if len(names) == 1 else (got, payload[4:])

    def expect_end(self):
        """The server closes; what it says before is returned, as methods."""
        said = []
        try:
            while True:
                kind, _, payload = self.receive()
                said.append(struct.unpack(">HH", payload[:4]) if kind == METHOD else kind)
        except Closed:
            return said

    def expect_error(self, code):
        """connection.close with this code, then the end."""
        return self.expect_error_of((code,))

    def expect_error_of(self, codes):
        """connection.close with one of these codes, then the end. Returns the code."""
        arguments = self.expect(CLOSE)
        got = struct.unpack(">H", arguments[:2])[0]
        assert got in codes, f"{got} {arguments[3:3 + arguments[2]]!r} instead of {codes}"
        self.send(method(0, CLOSE_OK))
        self.expect_end()
        self.close()
        return got

    def expect_any(self):
        """Some frame, or the end of the connection: any answer but silence."""
        try:
            return self.receive()
        except Closed:
            return None

    # Whole exchanges -------------------------------------------------------------------------------

    def channel_open(self, channel):
        self.send(method(channel, CHANNEL_OPEN, short("")))
        self.expect(CHANNEL_OPEN_OK)

    def queue_declare(self, channel, name, durable=False, passive=False, exclusive=False,
                      auto_delete=False, arguments=None):
        """(name, messages, consumers)."""
        flags = passive | durable << 1 | exclusive << 2 | auto_delete << 3
        self.send(method(channel, QUEUE_DECLARE, struct.pack(">H", 0) + short(name) +
                         bytes([flags]) + table(arguments or {})))
        got = self.expect(QUEUE_DECLARE_OK)
        size = got[0]
        return (got[1:1 + size].decode(), *struct.unpack(">II", got[1 + size:]))

    def queue_depth(self, channel, name):
        return self.queue_declare(channel, name, passive=True)[1]

    def queue_delete(self, channel, name):
        self.send(method(channel, QUEUE_DELETE, struct.pack(">H", 0) + short(name) + b"\0"))
        return struct.unpack(">I", self.expect(QUEUE_DELETE_OK))[0]

    def queue_bind(self, channel, queue, exchange, key):
        self.send(method(channel, QUEUE_BIND, struct.pack(">H", 0) + short(queue) +
                         short(exchange) + short(key) + b"\0" + table({})))
        self.expect(QUEUE_BIND_OK)

    def confirm_select(self, channel):
        self.send(method(channel, CONFIRM_SELECT, b"\0"))
        self.expect(CONFIRM_SELECT_OK)

    def qos(self, channel, count):
        self.send(method(channel, QOS, struct.pack(">IHB", 0, count, 0)))
        self.expect(QOS_OK)

    def consume(self, channel, queue, no_ack=False, tag=""):
        self.send(method(channel, CONSUME, struct.pack(">H", 0) + short(queue) + short(tag) +
                         bytes([no_ack << 1]) + table({})))
        return self.expect(CONSUME_OK)

    def publish(self, channel, exchange, key, body, **properties):
        self.send(publish(channel, exchange, key, body, **properties))

    def expect_confirms(self, count, first=1):
        """Returns the sequence numbers that were refused, of `count` from `first`."""
        open_ones, refused = set(range(first, first + count)), set()
        while open_ones:
            name, arguments = self.expect(ACK, NACK)
            tag, flags = struct.unpack(">QB", arguments)
            done = {n for n in open_ones if n <= tag} if flags & 1 else {tag}
            if name == NACK:
                refused |= done
            open_ones -= done
        return refused

    def expect_content(self):
        kind, _, payload = self.receive()
        assert kind == HEADER, kind
        left = struct.unpack(">Q", payload[4:12])[0]
        body = bytearray()
        while len(body) < left:
            kind, _, payload = self.receive()
            assert kind == BODY, kind
            body += payload
        return bytes(body)

    def expect_delivery(self):
        """(delivery tag, redelivered, body)."""
        arguments = self.expect(DELIVER)
        at = 1 + arguments[0]
        tag, redelivered = struct.unpack(">QB", arguments[at:at + 9])
        return tag, bool(redelivered), self.expect_content()

    def get(self, channel, queue, no_ack=True):
        """(delivery tag, body), or None."""
        self.send(method(channel, GET, struct.pack(">H", 0) + short(queue) + bytes([no_ack])))
        name, arguments = self.expect(GET_OK, GET_EMPTY)
        if name == GET_EMPTY:
            return None
        return struct.unpack(">Q", arguments[:8])[0], self.expect_content()

    def ack(self, channel, tag, multiple=False):
        self.send(method(channel, ACK, struct.pack(">QB", tag, multiple)))

    def roundtrip(self, channel, queue):
        """Everything sent before it was taken when it returns."""
        self.queue_declare(channel, queue, passive=True)

    def leave(self):
        """connection.close, answered."""
        self.send(method(0, CLOSE, struct.pack(">H", 200) + short("") + struct.pack(">HH", 0, 0)))
        while True:
            kind, _, payload = self.receive()
            if kind == METHOD and payload[:4] == struct.pack(">HH", *CLOSE_OK):
                break
        self.close()
