"""Providers: what each one's wire format means, and the client that carries it.

A provider is a row (`catalog`), a wire is a file of pure functions (`openai`, `echo` ...): bytes in, bytes out, no
input or output of its own. `client` is the only module that touches the network, through httpx's transport
interface. Each wire imports only `contract` and the SSE codec `sse`.
"""
