"""What a person may ask of the benchmark, and what that means when nothing is said."""

import argparse
from collections.abc import Sequence
from pathlib import Path

USUAL = ("json", "latency", "stream", "first-byte")
LONG = ("memory", "open-streams", "workers")
GROWTH = ("in-flight", "text", "image", "stream-length", "keys", "ledger", "idempotency", "replicas")
QUICK_LEVELS, LEVELS = (1, 32), (1, 16, 32, 64, 256)
PLOTS = Path(__file__).parents[2] / ".plots"
"""What the README shows."""
MODES = """
Peers (LiteLLM, Portkey) are measured beside in every run but --quick once they are installed; --peers measures them
in any case, and installs what is missing: into the user's cache, never here.
"""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, completed."""
    parser = argparse.ArgumentParser("scripts/bench", description="Measure AIGate with everything on.", epilog=MODES)
    parser.add_argument("--quick", action="store_true", help="fewer levels and shorter: about 20 s")
    parser.add_argument("--peers", action="store_true", help="install the peers that are missing, and measure them")
    parser.add_argument("--long", action="store_true", help=f"add {', '.join(LONG)}: about 12 min more")
    parser.add_argument("--growth", action="store_true", help="instead, say how cost grows: about 8 min")
    parser.add_argument("--profile", action="store_true", help="instead, say where the gateway's time goes: 1 min")
    names = f"{', '.join(USUAL + LONG)}; with --growth of {', '.join(GROWTH)}"
    parser.add_argument("--only", type=_groups, default=(), metavar="NAMES", help=f"comma-separated, of {names}")
    parser.add_argument("--seconds", type=float, help="of each load; default: 1, quick: 0.2")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: %(default)s")
    parser.add_argument(
        "--in-flight", type=_counts, metavar="LEVELS", help="comma-separated; default: 1,16,32,64,256"
    )
    parser.add_argument("--prompt", type=int, default=200, help="bytes of the prompt; default: %(default)s")
    parser.add_argument("--calls", type=int, default=1_000_000, help="of memory; default: %(default)s")
    parser.add_argument("--streams", type=int, default=5_000, help="of open-streams; default: %(default)s")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of ledger, at most; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots (SVG) of --long and --growth there")
    parser.add_argument(
        "--write", action="store_true", help="put the result into its block of README.md, and plots beside it"
    )
    options = parser.parse_args(arguments)
    if options.write and (options.quick or options.only or options.in_flight):
        parser.error("--write takes a whole run, --growth or --profile, lest a part looks like all")
    return _completed(options)


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    if options.write and options.plots is None:
        options.plots = PLOTS
    if options.seconds is None:
        options.seconds = 0.2 if options.quick else 1.0
    if options.in_flight is None:
        options.in_flight = QUICK_LEVELS if options.quick else LEVELS
    if not options.only:
        options.only = GROWTH if options.growth else (*USUAL, *(LONG if options.long else ()))
    return options


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if unknown := set(groups).difference(USUAL, LONG, GROWTH):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return groups


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
