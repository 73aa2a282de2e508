"""Why: a provider that is asked for plain bytes may compress all the same, and a small bomb must stay small.

Only gzip and deflate, which the standard library knows. Pieces are bounded, so whoever counts them can stop early.
"""

import zlib
from collections.abc import AsyncIterator

from .contract import Kind, ProviderError

_PIECE = 64 * 1024


def inflated(encoding: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks` without their content encoding; raises `ProviderError` (broken) for one that is not known."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return chunks
    if name not in ("gzip", "x-gzip", "deflate"):
        raise ProviderError(
            Kind.BROKEN, f"The provider's answer is encoded as {name[:50]!r}, which was not asked for."
        )
    return _inflate(chunks)


async def _inflate(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
    try:
        async for chunk in chunks:
            while piece := decoder.decompress(chunk, _PIECE):
                yield piece
                chunk = decoder.unconsumed_tail
    except zlib.error as error:
        raise ProviderError(
            Kind.BROKEN, "The provider's answer is not the compressed data it claims to be."
        ) from error
    if not decoder.eof:
        raise ProviderError(Kind.BROKEN, "The provider's compressed answer was cut off.")
