"""Providers: what each one's wire format means, and the client that carries it.

A provider is a row (`catalog`), a wire is a file of pure functions (`openai`, `echo` ...): bytes in, bytes out, no
input or output of its own. `client` is the only module that touches the network, through httpx's transport
interface. A wire imports `contract`, the SSE codec `sse` and what every wire reads alike (`document`, `usage`,
`errors`), never another wire.
"""
