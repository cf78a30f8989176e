"""One AMQP connection with one channel, without threads: a load of ten thousand messages a second
from one Python process leaves no time for a general client library (pika takes part beside it).

A link connects again and again until its owner stops it. Its owner has these methods:

    link_opened(link)                            the channel is open; declare, consume, publish
    link_delivered(link, tag, redelivered, body, message_id)
    link_confirmed(link, tag, multiple, ok)
    link_lost(link)                              whatever had no answer will never get one

Answers to declarations and the like (`call`) are handled in order by the function given with them.
A link belongs to one incarnation of the broker, `link.incarnation`: the number of starts so far, the
same before the connection was made and after it was open.
"""

import errno
import selectors
import socket
import struct
import time

PROTOCOL = b"AMQP\x00\x00\x09\x01"
FRAME = struct.Struct(">BHI")
U16, U32, U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")
HEADER = struct.Struct(">HHQH")
END = b"\xce"
METHOD, HEADER_FRAME, BODY, HEARTBEAT = 1, 2, 3, 8
BODY_MAX = 131072 - 8
READ_BYTES = 256 * 1024
OUTPUT_HIGH = 512 * 1024
RETRY_S = 0.005
OPEN_WAIT_S = 5.0

FLAG_HEADERS, FLAG_MODE, FLAG_ID = 1 << 13, 1 << 12, 1 << 7


def method_of(class_id, number):
    return class_id << 16 | number


START, TUNE, OPEN_OK, CLOSE = (method_of(10, n) for n in (10, 30, 41, 50))
CHANNEL_OPEN_OK, CHANNEL_CLOSE = method_of(20, 11), method_of(20, 40)
CANCEL = method_of(60, 30)
RETURN, DELIVER, ACK, NACK = (method_of(60, n) for n in (50, 60, 80, 120))


def short(text):
    raw = text.encode()
    return bytes([len(raw)]) + raw


def table(pairs):
    raw = b""
    for name, value in pairs.items():
        raw += short(name)
        if isinstance(value, int):
            raw += b"I" + struct.pack(">i", value)
        else:
            raw += b"S" + U32.pack(len(value)) + value.encode()
    return U32.pack(len(raw)) + raw


def frame(kind, channel, payload):
    return FRAME.pack(kind, channel, len(payload)) + payload + END


def method(number, payload=b"", channel=1):
    return frame(METHOD, channel, U32.pack(number) + payload)


def publish_prefix(exchange, key):
    """The basic.publish method frame, which is the same for every message of a route."""
    return method(method_of(60, 40), b"\0\0" + short(exchange) + short(key) + b"\0")


class LinkError(Exception):
    """The broker closed the channel or the connection, or said something it may not say."""


class Link:
    def __init__(self, loop, owner, name):
        self.loop, self.owner, self.name = loop, owner, name
        self.socket = None
        self.open = False
        self.stopped = False
        self.retry_at = 0.0
        self.incarnation = -1
        loop.links.append(self)

    # Life ------------------------------------------------------------------------------------------

    def connect(self):
        self.incarnation = self.loop.incarnation()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input, self.at = b"", 0
        self.output = bytearray(PROTOCOL)
        self.calls = []
        self.size_left, self.delivery = 0, None
        self.next_tag = 1  # of what is published
        self.events = 0
        self.opened_by = time.monotonic() + OPEN_WAIT_S
        code = self.socket.connect_ex(self.loop.address)
        if code not in (0, errno.EINPROGRESS):
            self.lose()
            return
        self.watch(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def watch(self, events):
        if events != self.events:
            if self.events == 0:
                self.loop.selector.register(self.socket, events, self)
            else:
                self.loop.selector.modify(self.socket, events, self)
            self.events = events

    def lose(self):
        """Drops the connection with all that was not read yet."""
        if self.socket is None:
            return
        if self.events != 0:
            self.loop.selector.unregister(self.socket)
        self.socket.close()
        self.socket = None
        was_open, self.open = self.open, False
        self.retry_at = time.monotonic() + RETRY_S
        if was_open:
            self.owner.link_lost(self)

    def stop(self):
        self.stopped = True
        self.lose()

    # Sending ---------------------------------------------------------------------------------------

    def send(self, data):
        self.output += data

    @property
    def congested(self):
        return len(self.output) > OUTPUT_HIGH

    def call(self, number, payload, answer, then=None):
        """A method that is answered by the method `answer`; `then(payload)` gets the answer."""
        self.send(method(number, payload))
        self.calls.append((answer, then))

    def publish(self, prefix, body, message_id, persistent=True):
        """Returns the tag by which it will be confirmed."""
        raw = message_id.encode()
        head = (HEADER.pack(60, 0, len(body), FLAG_MODE | FLAG_ID)
                + (b"\x02" if persistent else b"\x01") + bytes([len(raw)]) + raw)
        parts = [prefix, FRAME.pack(HEADER_FRAME, 1, len(head)), head, END]
        for at in range(0, len(body), BODY_MAX):
            piece = body[at:at + BODY_MAX]
            parts += [FRAME.pack(BODY, 1, len(piece)), piece, END]
        self.output += b"".join(parts)
        tag = self.next_tag
        self.next_tag += 1
        return tag

    def ack(self, tag, multiple):
        self.send(method(ACK, U64.pack(tag) + (b"\x01" if multiple else b"\0")))

    def nack(self, tag, multiple, requeue):
        self.send(method(NACK, U64.pack(tag) + bytes([multiple | requeue << 1])))

    def reject(self, tag, requeue):
        self.send(method(method_of(60, 90), U64.pack(tag) + bytes([requeue])))

    def confirm_select(self):
        self.call(method_of(85, 10), b"\0", method_of(85, 11))

    def qos(self, count):
        self.call(method_of(60, 10), U32.pack(0) + U16.pack(count) + b"\0", method_of(60, 11))

    def consume(self, queue):
        self.call(method_of(60, 20), b"\0\0" + short(queue) + short("c") + b"\0" + table({}),
                  method_of(60, 21))

    def queue_declare(self, queue, arguments=None, passive=False, then=None):
        self.call(method_of(50, 10), b"\0\0" + short(queue) + (b"\x01" if passive else b"\x02")
                  + table(arguments or {}), method_of(50, 11), then)

    def exchange_declare(self, name, kind):
        self.call(method_of(40, 10), b"\0\0" + short(name) + short(kind) + b"\x02" + table({}),
                  method_of(40, 11))

    def queue_bind(self, queue, exchange, key):
        self.call(method_of(50, 20), b"\0\0" + short(queue) + short(exchange) + short(key) + b"\0"
                  + table({}), method_of(50, 21))

    def flush(self):
        if self.socket is None:
            return
        if self.output:
            try:
                sent = self.socket.send(self.output)
                del self.output[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self.lose()
                return
        self.watch(selectors.EVENT_READ | (selectors.EVENT_WRITE if self.output else 0))

    # Receiving -------------------------------------------------------------------------------------

    def ready(self, events):
        if events & selectors.EVENT_READ:
            try:
                data = self.socket.recv(READ_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data == b"":
                self.lose()
                return
            if data:
                self.input = self.input[self.at:] + data if self.at < len(self.input) else data
                self.at = 0
                self.frames_take()
        if self.socket is not None:
            self.flush()

    def frames_take(self):
        data, at, size = self.input, self.at, len(self.input)
        while size - at >= 8:
            kind, _channel, length = FRAME.unpack_from(data, at)
            end = at + 7 + length
            if end >= size:
                break
            if data[end] != 0xCE:
                raise LinkError(f"{self.name}: a frame without its end octet")
            if kind == METHOD:
                self.method_take(U32.unpack_from(data, at + 7)[0], data, at + 11, end)
            elif kind == HEADER_FRAME:
                self.header_take(data, at + 7)
            elif kind == BODY:
                self.body_take(data[at + 7:end])
            elif kind != HEARTBEAT:
                raise LinkError(f"{self.name}: a frame of kind {kind}")
            if self.socket is None:
                return
            at = end + 1
        self.at = at

    def method_take(self, number, data, at, end):
        if number == DELIVER:
            at += 1 + data[at]
            self.delivery = [U64.unpack_from(data, at)[0], bool(data[at + 8]), [], ""]
        elif number == ACK or number == NACK:
            self.owner.link_confirmed(self, U64.unpack_from(data, at)[0], bool(data[at + 8] & 1),
                                      number == ACK)
        elif number == START:
            login = b"\0guest\0guest"
            self.send(method(method_of(10, 11), table({}) + short("PLAIN") + U32.pack(len(login))
                             + login + short("en_US"), 0))
        elif number == TUNE:
            self.send(method(method_of(10, 31), struct.pack(">HIH", 1, BODY_MAX + 8, 0), 0)
                      + method(method_of(10, 40), short("/") + b"\0\0", 0))
        elif number == OPEN_OK:
            self.send(method(method_of(20, 10), b"\0"))
        elif number == CHANNEL_OPEN_OK:
            if self.loop.incarnation() != self.incarnation:
                self.lose()
                return
            self.open = True
            self.owner.link_opened(self)
        elif number in (CLOSE, CHANNEL_CLOSE):
            code, size = U16.unpack_from(data, at)[0], data[at + 2]
            text = bytes(data[at + 3:at + 3 + size]).decode(errors="replace")
            if number == CLOSE and code == 320:  # the broker goes down in order
                self.lose()
                return
            raise LinkError(f"{self.name}: closed by the broker: {code} {text}")
        elif number == RETURN:
            raise LinkError(f"{self.name}: a message was returned")
        elif number == CANCEL:
            raise LinkError(f"{self.name}: the consumer was cancelled")
        elif self.calls and self.calls[0][0] == number:
            then = self.calls.pop(0)[1]
            if then is not None:
                then(bytes(data[at:end]))
        elif number not in (method_of(10, 60), method_of(10, 61)):  # blocked, unblocked
            raise LinkError(f"{self.name}: method {number >> 16}.{number & 0xFFFF}, not expected")

    def header_take(self, data, at):
        _class, _weight, self.size_left, flags = HEADER.unpack_from(data, at)
        at += HEADER.size
        if flags & ~(FLAG_HEADERS | FLAG_MODE | FLAG_ID):
            raise LinkError(f"{self.name}: properties {flags:#x} that nobody sent")
        if flags & FLAG_HEADERS:
            at += 4 + U32.unpack_from(data, at)[0]
        if flags & FLAG_MODE:
            at += 1
        if flags & FLAG_ID:
            self.delivery[3] = data[at + 1:at + 1 + data[at]].decode(errors="replace")

    def body_take(self, piece):
        tag, redelivered, parts, message_id = self.delivery
        self.size_left -= len(piece)
        if self.size_left > 0:
            parts.append(piece)
            return
        body = b"".join([*parts, piece]) if parts else piece
        self.delivery = None
        self.owner.link_delivered(self, tag, redelivered, body, message_id)


class Loop:
    """Turns links. `turn_ended` of every owner is called once a turn, to publish and settle."""

    def __init__(self, address, incarnation, refused):
        self.address, self.incarnation, self.refused = address, incarnation, refused
        self.selector = selectors.DefaultSelector()
        self.links, self.owners = [], []

    def turn(self, wait_s=0.005):
        for key, events in self.selector.select(wait_s):
            if key.data.socket is not None:
                try:
                    key.data.ready(events)
                except LinkError as error:
                    self.refused(f"incarnation {key.data.incarnation}: {error}")
                    key.data.lose()
        now = time.monotonic()
        for link in self.links:
            if link.socket is None:
                if not link.stopped and now >= link.retry_at:
                    link.connect()
            elif not link.open and now > link.opened_by:
                link.lose()
        for owner in self.owners:
            owner.turn_ended(now)
        for link in self.links:
            if link.socket is not None and link.output:
                link.flush()

    def close(self):
        for link in self.links:
            link.stop()
        self.selector.close()
