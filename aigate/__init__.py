"""AIGate, the composition root: the only package that knows `middleware` and `providers`.

It reads the settings, opens the stores, composes the chain and serves it. See `app.py` for the way of a request.
"""

__version__ = "0.1.0"
