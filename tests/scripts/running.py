"""Runs a script as a person does: another process, an empty working folder, only the variables that are given."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script ended."""

    status: int | None
    out: str
    err: str


async def run(script: str, *arguments: str, folder: Path, **variables: str) -> Ended:
    """Run `scripts/<script>` in `folder`, which holds no `.env`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPTS / script),
        *arguments,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*", **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return Ended(process.returncode, out.decode(), err.decode())
