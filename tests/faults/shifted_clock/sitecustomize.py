"""Shifts the wall clock of the Python process that finds this on its path, by what a file says at that moment.

The monotonic clock goes on as it is: that is what a jump of a machine's clock looks like from inside.
"""

import mmap
import os
import struct
import time


def _shift() -> None:
    with open(os.environ["AIGATE_FAULTS_CLOCK"], "rb") as file:
        memory = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    true_time, true_time_ns = time.time, time.time_ns

    def shift() -> float:
        (seconds,) = struct.unpack("d", memory[:8])
        return float(seconds)

    time.time = lambda: true_time() + shift()
    time.time_ns = lambda: true_time_ns() + int(shift() * 1e9)


_shift()
