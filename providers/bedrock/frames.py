"""Why: a stream comes as binary frames, each with two checksums, and is cut at any byte on its way.

A frame is waited for by its length, which its first checksum vouches for, and handed to botocore as soon as it is
whole: botocore's own buffer copies all that it holds at each piece. What does not add up is never passed on.

Source: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream-med.html (the encoding, shared by all of AWS)
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

from providers.contract import Kind, ProviderError

MAX_FRAME_BYTES = 8 * 1024 * 1024

_PRELUDE = struct.Struct(">III")
_LEAST = _PRELUDE.size + 4


class Frame(NamedTuple):
    """One message: its headers, such as `:event-type`, and its payload."""

    headers: dict[str, Any]
    payload: bytes


class Frames:
    """Whole frames out of bytes at any chunking. Raises `ProviderError` (broken) for what is none."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes; raises after those before the broken one."""
        self._held += data
        while len(self._held) >= _PRELUDE.size:
            length = self._length()
            if len(self._held) < length:
                return
            frame = bytes(self._held[:length])
            del self._held[:length]
            yield _read(frame)

    def _length(self) -> int:
        length, _, checksum = _PRELUDE.unpack_from(self._held)
        if crc32(self._held[:8]) != checksum:
            raise _broken("its checksum does not fit")
        if not _LEAST <= length <= MAX_FRAME_BYTES:
            raise _broken(f"it has {length} bytes")
        return int(length)


def _read(data: bytes) -> Frame:
    from botocore.eventstream import EventStreamBuffer, ParserError

    buffer = EventStreamBuffer()
    buffer.add_data(data)
    try:
        message = buffer.next()
    except (ParserError, StopIteration, struct.error, ValueError, KeyError) as error:
        raise _broken(str(error)[:200]) from None
    return Frame(message.headers, message.payload)


def _broken(why: str) -> ProviderError:
    return ProviderError(Kind.BROKEN, f"The provider's answer holds a broken frame: {why}.")
