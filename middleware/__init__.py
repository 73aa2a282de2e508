"""One standalone ASGI middleware per cross-cutting concern.

Each may stand alone in front of any ASGI application; together, in the order of `aigate.app`, they make the
gateway's chain. They share only `asgi` (the protocol's types), `exchange` (the one object of a request) and
`faults` (how to refuse); no middleware knows a sibling, a web framework, a database or a provider.
"""
