"""The benchmark: AIGate with everything on, beside what stands behind it, in one run on one machine.

Peers publish numbers with their stores switched off. Here auth, limits, the durable ledger, metrics and logs are on,
and at the end the provider's own bill is held against the ledger: a run that lost or invented a token fails.

What runs:

- `system`: processes, the cores that they are pinned to, CPU time and memory from /proc
- `upstream`: the mock provider, which keeps its own bill
- `load`: the load generator, exact in what it counts; `wrk` beside it where it is installed
- `targets`: what is measured; the mock directly, and nginx
- `gateway`: ours, its stores, and the money
- `peers`: LiteLLM and Portkey, each in a folder of the user's `cache`

What is asked:

- `options`: by the person who runs it
- `measures`: loads at levels, interleaved over the targets
- `long_runs`: memory over a million calls, thousands of open streams, two workers
- `growth`: how cost grows with load, bytes, keys and `rows`
- `profile`: where the gateway's time goes, by the `layers` of the chain

What is told:

- `table`, `verdicts`, `svg`, `report`: for people and programs
- `readme`: the blocks of README.md that a command fills
"""
