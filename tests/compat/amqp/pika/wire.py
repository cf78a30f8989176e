"""A connection that sends and receives single frames, for what no well-behaved client does.

Frames are made and read with pika's own codec; nothing is done behind the test's back: no
heartbeats, no answers.
"""

import socket
import struct

from pika import frame, spec


class Closed(Exception):
    """The server closed the socket."""


class WireConnection:
    def __init__(self, host, port, timeout_s=8.0):
        self.socket = socket.create_connection((host, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.start = None
        self.tune = None

    def close(self):
        self.socket.close()

    # Sending -------------------------------------------------------------------------------------

    def send(self, *items):
        """Bytes, or frames of pika.frame, in one write."""
        self.socket.sendall(b"".join(item if isinstance(item, bytes) else item.marshal()
                                     for item in items))

    def method(self, channel, method):
        self.send(frame.Method(channel, method))

    def raw_frame(self, kind, channel, payload, end=b"\xce"):
        self.send(struct.pack(">BHI", kind, channel, len(payload)) + payload + end)

    def publish(self, channel, exchange, routing_key, body=b"", properties=None, frame_max=131072,
                **flags):
        parts = [frame.Method(channel, spec.Basic.Publish(exchange=exchange,
                                                          routing_key=routing_key, **flags)),
                 frame.Header(channel, len(body), properties or spec.BasicProperties())]
        step = frame_max - 8
        parts += [frame.Body(channel, body[at:at + step]) for at in range(0, len(body), step)]
        self.send(*parts)

    # Receiving -----------------------------------------------------------------------------------

    def bytes(self, count):
        while len(self._buffer) < count:
            piece = self.socket.recv(65536)
            if not piece:
                raise Closed
            self._buffer += piece
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def frame_bytes(self):
        """(type, channel, payload) of the next frame."""
        kind, channel, size = struct.unpack(">BHI", self.bytes(7))
        payload = self.bytes(size)
        assert self.bytes(1) == b"\xce", "frame end octet"
        return kind, channel, payload

    def receive(self):
        """The next frame, as pika.frame has it; raises Closed at the end of the stream."""
        kind, channel, payload = self.frame_bytes()
        head = struct.pack(">BHI", kind, channel, len(payload))
        return frame.decode_frame(head + payload + b"\xce")[1]

    def expect(self, wanted):
        """The next method, which must be one of this class; heartbeats are passed over."""
        while True:
            got = self.receive()
            if not isinstance(got, frame.Heartbeat):
                break
        method = getattr(got, "method", got)
        assert isinstance(method, wanted), f"{method!r} instead of {wanted.__name__}"
        return method

    def expect_content(self):
        """(properties, body) of the content that follows."""
        header = self.receive()
        assert isinstance(header, frame.Header), header
        body = b""
        while len(body) < header.body_size:
            part = self.receive()
            assert isinstance(part, frame.Body), part
            body += part.fragment
        return header.properties, body

    def expect_close(self, code, text=None):
        """A connection.close with this code, answered, and then the end of the stream."""
        close = self.expect(spec.Connection.Close)
        assert close.reply_code == code, close
        if text is not None:
            assert close.reply_text == text
        self.method(0, spec.Connection.CloseOk())
        self.expect_end()
        return close

    def expect_end(self):
        try:
            while True:
                self.receive()
        except (Closed, ConnectionResetError):
            pass

    def expect_silence(self, seconds):
        """Nothing arrives for so long."""
        assert self._buffer == b"", self._buffer
        self.socket.settimeout(seconds)
        try:
            piece = self.socket.recv(65536)
            raise AssertionError(f"received {piece!r}")
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(8.0)

    # Opening -------------------------------------------------------------------------------------

    def say_hello(self):
        self.send(b"AMQP\x00\x00\x09\x01")
        self.start = self.expect(spec.Connection.Start)
        return self.start

    def say_start_ok(self, user="guest", password="guest", mechanism="PLAIN", properties=None):
        self.method(0, spec.Connection.StartOk(
            client_properties=properties if properties is not None else {
                "capabilities": {"authentication_failure_close": True,
                                 "consumer_cancel_notify": True, "basic.nack": True,
                                 "publisher_confirms": True, "connection.blocked": True}},
            mechanism=mechanism, response=f"\0{user}\0{password}", locale="en_US"))

    def login(self, channel_max=None, frame_max=None, heartbeat=0, vhost="/", **start_ok):
        """The whole opening, up to connection.open-ok."""
        self.say_hello()
        self.say_start_ok(**start_ok)
        self.tune = self.expect(spec.Connection.Tune)
        self.method(0, spec.Connection.TuneOk(
            channel_max=self.tune.channel_max if channel_max is None else channel_max,
            frame_max=self.tune.frame_max if frame_max is None else frame_max,
            heartbeat=heartbeat))
        self.method(0, spec.Connection.Open(vhost))
        self.expect(spec.Connection.OpenOk)
        return self

    def open_channel(self, channel=1):
        self.method(channel, spec.Channel.Open())
        self.expect(spec.Channel.OpenOk)

    def declare(self, channel, queue, **options):
        self.method(channel, spec.Queue.Declare(queue=queue, **options))
        return self.expect(spec.Queue.DeclareOk)
