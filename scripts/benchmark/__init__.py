"""The benchmark: AIGate with everything on, beside what stands behind it, in one run on one machine.

Peers publish numbers with their stores switched off. Here auth, limits, the durable ledger, metrics and logs are on,
and at the end the provider's own bill is held against the ledger: a run that lost or invented a token fails.

- `system`: processes, the cores that they are pinned to, CPU time and memory from /proc
- `upstream`: the mock provider, which keeps its own bill
- `load`: the load generator, exact in what it counts; `wrk` where it is installed and asked for
- `targets`: what is measured: the mock directly, nginx, the gateway
- `measures`: the measurements, interleaved over the targets
- `table`: what people read
- `profile`: where the gateway's time goes
"""
