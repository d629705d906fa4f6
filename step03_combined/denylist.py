"""The denylist: what is over and must never count again, kept until nobody could bring it back.

It holds two things that have names of their own elsewhere: revoked logins
(token revocation), and used order ids (idempotency keys).
"""

import sqlite3
import time
from contextlib import closing, suppress
from typing import Protocol

from anyio import CapacityLimiter, to_thread


class DenylistUnreachable(Exception):
    """The denylist cannot be asked, so nobody can be let in."""


class Denylist(Protocol):
    """What the app asks of a denylist; both methods raise DenylistUnreachable."""

    async def add(self, entry: str) -> bool:
        """Add an entry; say whether it was new. If many calls add the same entry at once, exactly one gets True."""

    async def contains(self, entry: str) -> bool:
        """Say whether the entry was added."""


class SQLiteDenylist:
    """A denylist in a file, shared by all processes of one machine."""

    def __init__(self, path: str, keep_seconds: int) -> None:
        self.path, self.keep_seconds = path, keep_seconds
        self.one_at_a_time = CapacityLimiter(1)  # SQLite takes one writer, and lets many fight for it: some would lose
        try:
            # Of processes that start at once only one can switch on WAL, for all: readers need not wait for a writer.
            with closing(self.connect(wait=10)) as connection, suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode=WAL")
            with closing(self.connect(wait=10)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS denylist (entry TEXT PRIMARY KEY, expires REAL)")
                connection.execute("CREATE INDEX IF NOT EXISTS denylist_expires ON denylist (expires)")
                # It fails if the file can only be read. To open it does not.
                connection.execute("DELETE FROM denylist WHERE expires < ?", (time.time(),))
            self.reader = self.connect(wait=0.2)
        except sqlite3.Error as error:
            raise SystemExit(f"DENYLIST_URL: cannot open {path}: {error}.") from None

    def connect(self, wait: float) -> sqlite3.Connection:
        """Return a connection that commits each statement by itself, and waits so many seconds for a lock."""
        return sqlite3.connect(self.path, timeout=wait, isolation_level=None, check_same_thread=False)

    async def add(self, entry: str) -> bool:
        # In a thread: a write may have to wait for another one, and meanwhile the event loop answers everybody else.
        return await to_thread.run_sync(self.insert, entry, limiter=self.one_at_a_time)

    def insert(self, entry: str) -> bool:
        """Write an entry, and forget what was kept long enough."""
        now = time.time()
        try:
            with closing(self.connect(wait=1)) as connection:
                connection.execute("DELETE FROM denylist WHERE expires < ?", (now,))
                added = connection.execute(
                    "INSERT OR IGNORE INTO denylist VALUES (?, ?)", (entry, now + self.keep_seconds)
                )
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return added.rowcount == 1  # 0: it was there, and the primary key took no second one

    async def contains(self, entry: str) -> bool:
        # Not in a thread: the look-up takes 4 microseconds, and handing it over 60 more.
        try:
            found = self.reader.execute("SELECT 1 FROM denylist WHERE entry = ?", (entry,)).fetchone()
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return found is not None


def open_denylist(url: str, keep_seconds: int) -> Denylist:
    """Return the denylist that the URL names, which keeps an entry for so long; exits if there can be none."""
    if url.startswith(("redis://", "rediss://")):
        from .denylist_redis import RedisDenylist  # only who asks for it needs the package

        return RedisDenylist(url, keep_seconds)
    if not url.startswith("sqlite:///"):
        raise SystemExit("DENYLIST_URL must begin with sqlite:///, redis:// or rediss://.")
    path = url.removeprefix("sqlite:///")
    if path.startswith("file:") or path in ("", ":memory:"):
        raise SystemExit("DENYLIST_URL must name a file by its path: a denylist in memory is empty after each restart.")
    return SQLiteDenylist(path, keep_seconds)
