"""Recorded bytes with something wrong in them: the same at each run, and another for each seed."""

import random
from zlib import crc32

from tests.providers.bedrock_frames import sealed

SEEDS = range(12)


def mutated(data: bytes, seed: int) -> bytes:
    """The bytes with a few of them flipped, lost, doubled, moved or made up."""
    chance = random.Random(crc32(data) + seed)
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(found) + 1)
        stop = min(start + chance.choice([1, 1, 2, 8, 64]), len(found))
        piece = bytes(found[start:stop])
        match chance.randrange(5):
            case 0:
                found[start:stop] = bytes(each ^ (1 << chance.randrange(8)) for each in piece)
            case 1:
                del found[start:stop]
            case 2:
                found[start:stop] = piece * 3
            case 3:
                found[start:stop] = chance.randbytes(len(piece))
            case 4:
                place = chance.randrange(len(found) + 1)
                found[place:place] = piece
    return bytes(found)


def mutated_frames(data: bytes, seed: int) -> bytes:
    """AWS frames whose heads and payloads are mutated, and whose checksums fit all the same."""
    chance = random.Random(crc32(data) + seed)
    made = b""
    while data:
        length, head = int.from_bytes(data[:4]), int.from_bytes(data[4:8])
        parts = [data[12 : 12 + head], data[12 + head : length - 4]]
        if chance.random() < 0.2:
            changed = chance.choice([0, 1, 1, 1])
            parts[changed] = mutated(parts[changed], seed)
        made += sealed(*parts)
        data = data[length:]
    return made
