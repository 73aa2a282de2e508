"""`wrk`, for who trusts no load generator of ours. It runs last: it cuts calls, so the books are closed before it."""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .system import BenchmarkError, program
from .targets import PEERS, Prompt, Target

IN_FLIGHT = 32
RATE = re.compile(r"Requests/sec:\s*([\d.]+)")
REFUSED = "Non-2xx"
SCRIPT = """
wrk.method = "POST"
{headers}
wrk.headers["content-type"] = "application/json"
wrk.body = [==[{body}]==]
"""


def calls_a_second(targets: Sequence[Target], options: argparse.Namespace) -> dict[str, float]:
    """What `wrk` counts for each target without keys; nothing where it is not installed, or of a peer that fails."""
    found, rates = program("wrk"), dict[str, float]()
    for target in targets if found else ():
        if target.varying:
            continue
        try:
            rates[target.name] = _rate(str(found), target, options)
        except BenchmarkError:
            if target.name not in PEERS:
                raise
    return rates


def _rate(found: str, target: Target, options: argparse.Namespace) -> float:
    _, request = target.request("json", stream=False, prompt=Prompt(options.prompt))
    pairs = (line.split(": ", 1) for line in target.headers.decode().splitlines())
    headers = "\n".join(f"wrk.headers[{name!r}] = {value!r}" for name, value in pairs)
    body = request.partition(b"\r\n\r\n")[2].decode()
    seconds = max(1, round(options.seconds))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "request.lua"
        script.write_text(SCRIPT.format(headers=headers, body=body))
        url = f"http://127.0.0.1:{target.ports[0]}/v1/chat/completions"
        command = [found, "-t1", f"-c{IN_FLIGHT}", f"-d{seconds}s", "-s", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    rate = RATE.search(done.stdout)
    if rate is None or REFUSED in done.stdout:
        raise BenchmarkError(f"wrk failed: {done.stderr or done.stdout}")
    return float(rate[1])
