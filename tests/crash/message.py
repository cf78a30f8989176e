"""The bodies that the crash test sends: each says who made it and which one it is, and proves that
nothing in it was changed.

    magic u16 · producer u16 · sequence u32 · padding, a piece of one known text · CRC-32 of it all
"""

import random
import struct
import zlib

MAGIC = 0x77E1
HEAD = struct.Struct(">HHI")
TAIL = struct.Struct(">I")
TEXT_BYTES = 256 * 1024
TEXT = random.Random(1).randbytes(TEXT_BYTES)


def body_make(producer, sequence, padding):
    at = sequence * 61 % (TEXT_BYTES - padding)
    body = HEAD.pack(MAGIC, producer, sequence) + TEXT[at:at + padding]
    return body + TAIL.pack(zlib.crc32(body))


def body_read(body):
    """(producer, sequence), or None when these are not the bytes that somebody sent."""
    size = len(body)
    if size < HEAD.size + TAIL.size:
        return None
    magic, producer, sequence = HEAD.unpack_from(body)
    if magic != MAGIC or TAIL.unpack_from(body, size - 4)[0] != zlib.crc32(body[:-4]):
        return None
    return producer, sequence


def padding_choose(rng):
    """Mostly small; some fill a journal block by themselves, a few span several frames."""
    dice = rng.random()
    if dice < 0.985:
        return rng.randrange(8, 200)
    if dice < 0.998:
        return rng.randrange(1000, 20000)
    return rng.randrange(130000, 200000)
