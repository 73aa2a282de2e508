"""Why: a checkout must run and be tested with nothing installed beside it, on the stores that production
uses: a real PostgreSQL and a real Redis from wheels, never a fake and never a second SQL dialect.

The servers outlive their gateway on purpose: `kill -9` of it leaves them running, the next start adopts
them, and the last user to leave stops them. Three locked files per server carry this; see `sharing`.
"""

from aigate.embedded.postgres import EmbeddedPostgres, start_postgres
from aigate.embedded.process import EmbeddedError
from aigate.embedded.redis import EmbeddedRedis, start_redis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis", "start_postgres", "start_redis"]
