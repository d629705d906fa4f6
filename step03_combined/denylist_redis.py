"""The denylist in Redis, for an app on many machines."""

import asyncio

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .denylist import DenylistUnreachable

ANSWER_SECONDS = 1


class RedisDenylist:
    """A denylist in Redis, shared by all processes that reach it."""

    def __init__(self, url: str, keep_seconds: int) -> None:
        self.keep_seconds = keep_seconds
        try:
            # Of many visitors at one moment each waits for a connection; the default pool would turn some away. The
            # waits of a connection are as short: one that begins just before the time is up goes on beyond it.
            pool = BlockingConnectionPool.from_url(
                url,
                timeout=ANSWER_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            pool.make_connection()  # opens nothing yet, but takes no unknown option
        except (ValueError, TypeError):
            raise SystemExit("DENYLIST_URL must be like redis://:password@host:6379/0, percent-encoded.") from None
        self.redis = Redis(connection_pool=pool)

    async def add(self, entry: str) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await self.redis.set(f"denylist:{entry}", 1, nx=True, ex=self.keep_seconds))
        except (RedisError, OSError) as error:  # asyncio's TimeoutError is an OSError
            raise DenylistUnreachable from error

    async def contains(self, entry: str) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await self.redis.exists(f"denylist:{entry}"))
        except (RedisError, OSError) as error:
            raise DenylistUnreachable from error
