"""The stores: PostgreSQL is the truth, Redis is speed.

Each module is one port of the chain made real, its SQL beside the function that runs it. Losing Redis loses no
money; losing PostgreSQL refuses what would cost money.
"""
