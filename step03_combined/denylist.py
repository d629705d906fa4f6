"""The denylist: what is over and must never count again, kept until nobody could bring it back."""

import sqlite3
import time
from contextlib import suppress
from functools import cached_property
from typing import Protocol


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
        try:
            # Try to write: SQLite opens a file that can only be read without an error, and the first logout would fail.
            self.connection.execute("DELETE FROM denylist WHERE expires < ?", (time.time(),))
        except sqlite3.Error as error:
            raise SystemExit(f"DENYLIST_URL: cannot open {path}: {error}.") from None
        self.connection.close()
        del self.connection  # opened anew at the next use: each of uvicorn's worker processes needs its own

    @cached_property
    def connection(self) -> sqlite3.Connection:
        """A connection that commits each statement by itself, and waits 0.2 seconds for a lock."""
        connection = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        # Readers need not wait for a writer. Of processes that start at once only one can switch it on, for all.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS denylist (entry TEXT PRIMARY KEY, expires REAL NOT NULL)")
        connection.execute("CREATE INDEX IF NOT EXISTS denylist_expires ON denylist (expires)")
        connection.execute("PRAGMA busy_timeout = 200")  # milliseconds: only who creates the file may wait longer
        return connection

    async def add(self, entry: str) -> bool:
        try:
            self.connection.execute("DELETE FROM denylist WHERE expires < ?", (time.time(),))
            added = self.connection.execute(
                "INSERT OR IGNORE INTO denylist VALUES (?, ?)", (entry, time.time() + self.keep_seconds)
            )
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return added.rowcount == 1  # 0: it was there, and the primary key took no second one

    async def contains(self, entry: str) -> bool:
        # Not handed to a thread: the look-up takes some microseconds, the thread would take hundreds.
        try:
            found = self.connection.execute("SELECT 1 FROM denylist WHERE entry = ?", (entry,)).fetchone()
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return found is not None


def open_denylist(url: str, keep_seconds: int) -> Denylist:
    """Return the denylist that the URL names, which keeps an entry for so long; exits if there can be none."""
    if url in ("sqlite:///", "sqlite:///:memory:"):
        raise SystemExit("DENYLIST_URL must name a file: a denylist in memory is empty after each restart.")
    if url.startswith("sqlite:///"):
        return SQLiteDenylist(url.removeprefix("sqlite:///"), keep_seconds)
    if url.startswith(("redis://", "rediss://")):
        from .denylist_redis import RedisDenylist  # only who asks for it needs the package

        return RedisDenylist(url, keep_seconds)
    raise SystemExit("DENYLIST_URL must begin with sqlite:///, redis:// or rediss://.")
