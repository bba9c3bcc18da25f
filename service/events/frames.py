"""How records lie in a segment: `length u32 | crc32 u32 | payload`, little-endian, one after another.

The checksum covers the length and the payload, so that a damaged length is not taken for another record's end. A
payload is a JSON object that begins with `MARK`, which is how reading finds its way back after damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MARK = b'{"type":"'
MAX_PAYLOAD_BYTES = 16 << 20
HEAD_BYTES = 8
_CHUNK_BYTES = 1 << 20
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record. `offset`: where its frame begins, in bytes."""

    offset: int
    payload: bytes

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + HEAD_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no whole record. `at_end`: no whole record follows, as where writing was cut short."""

    offset: int
    size: int
    reason: str
    at_end: bool


def frame(payload: bytes) -> bytes:
    """Frame a payload. Raises ValueError for one that could not be read back."""
    if not payload.startswith(MARK) or len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload begins with {MARK!r} and has at most {MAX_PAYLOAD_BYTES} bytes")
    length = _U32.pack(len(payload))
    return length + _U32.pack(zlib.crc32(payload, zlib.crc32(length))) + payload


def scan(source: BinaryIO, start: int = 0) -> Iterator[Record | Damage]:
    """Yield every whole record from `start` on, and what lies between them that is none.

    Every byte read belongs to exactly one of what is yielded. `source` is a seekable file; what is appended to it
    meanwhile may or may not be read.
    """
    offset = start
    source.seek(offset)
    while True:
        head = source.read(HEAD_BYTES)
        if not head:
            return
        payload, reason = _payload(source, head)
        if not reason:
            yield Record(offset, payload)
            offset += HEAD_BYTES + len(payload)
            continue
        following, end = _find_record(source, offset + 1)
        if following is None:
            yield Damage(offset, end - offset, reason, at_end=True)
            return
        yield Damage(offset, following - offset, reason, at_end=False)
        offset = following
        source.seek(offset)


def _payload(source: BinaryIO, head: bytes) -> tuple[bytes, str]:
    """Read the payload that belongs to a head; or say why it is none."""
    if len(head) < HEAD_BYTES:
        return b"", "cut short"
    (length,) = _U32.unpack_from(head)
    if not len(MARK) <= length <= MAX_PAYLOAD_BYTES:
        return b"", "impossible length"
    payload = source.read(length)
    if len(payload) < length:
        return b"", "cut short"
    if _U32.pack(zlib.crc32(payload, zlib.crc32(head[:4]))) != head[4:]:
        return b"", "wrong checksum"
    return (payload, "") if payload.startswith(MARK) else (b"", "not a record")


def _find_record(source: BinaryIO, start: int) -> tuple[int | None, int]:
    """Offset of the first whole record that begins at `start` or later (None: there is none), and the file's end."""
    position = start
    while True:
        source.seek(position)
        chunk = source.read(_CHUNK_BYTES)
        at = chunk.find(MARK, HEAD_BYTES)
        while at >= 0:
            candidate = position + at - HEAD_BYTES
            source.seek(candidate)
            if not _payload(source, source.read(HEAD_BYTES))[1]:
                return candidate, 0
            at = chunk.find(MARK, at + 1)
        if len(chunk) < _CHUNK_BYTES:
            return None, position + len(chunk)
        # A head and a mark may lie across the chunks' border.
        position += len(chunk) - HEAD_BYTES - len(MARK) + 1
