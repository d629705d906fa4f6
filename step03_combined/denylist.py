"""The denylist: what is over and must never count again, kept until nobody could bring it back."""

import sqlite3
import time
from contextlib import suppress
from functools import cached_property
from typing import Protocol

KEEP_SECONDS = 2 * 60 * 60  # twice the longest login: a clock that steps back an hour revives nothing


class DenylistUnreachable(Exception):
    """The denylist cannot be asked, so nobody can be let in."""


class Denylist(Protocol):
    """What the app asks of a denylist; both raise DenylistUnreachable."""

    async def add(self, entry: str) -> bool:
        """Add an entry; say whether it was new. Of many calls at once for one entry, one is told so."""

    async def contains(self, entry: str) -> bool:
        """Say whether the entry was added."""


class SQLiteDenylist:
    """A denylist in a file, shared by all processes of one machine."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            connection = self.open()
            # A write, as a file that can only be read opens without an error.
            connection.execute("DELETE FROM denylist WHERE expires < ?", (time.time(),))
            connection.close()
        except sqlite3.Error as error:
            raise SystemExit(f"DENYLIST_URL: cannot open {path}: {error}.") from None

    def open(self) -> sqlite3.Connection:
        """Return a new connection that commits each statement by itself, and waits 0.2 seconds for a lock."""
        connection = sqlite3.connect(self.path, timeout=0.2, isolation_level=None, check_same_thread=False)
        with suppress(sqlite3.OperationalError):  # of processes that start at once, one sets it for all
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS denylist (entry TEXT PRIMARY KEY, expires REAL NOT NULL)")
        connection.execute("CREATE INDEX IF NOT EXISTS denylist_expires ON denylist (expires)")
        return connection

    # Opened where it is first used: a connection must not cross a fork.
    connection = cached_property(open)

    async def add(self, entry: str) -> bool:
        try:
            self.connection.execute("DELETE FROM denylist WHERE expires < ?", (time.time(),))
            added = self.connection.execute(
                "INSERT OR IGNORE INTO denylist VALUES (?, ?)", (entry, time.time() + KEEP_SECONDS)
            )
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return added.rowcount == 1

    async def contains(self, entry: str) -> bool:
        # Not handed to a thread: the look-up takes some microseconds, the thread would take hundreds.
        try:
            found = self.connection.execute("SELECT 1 FROM denylist WHERE entry = ?", (entry,)).fetchone()
        except sqlite3.Error as error:
            raise DenylistUnreachable from error
        return found is not None


def open_denylist(url: str) -> Denylist:
    """Return the denylist that the URL names; exits if there can be none."""
    if url in ("sqlite:///", "sqlite:///:memory:"):
        raise SystemExit("DENYLIST_URL must name a file: what is in memory only forgets which logins are over.")
    if url.startswith("sqlite:///"):
        return SQLiteDenylist(url.removeprefix("sqlite:///"))
    if url.startswith(("redis://", "rediss://")):
        from .denylist_redis import RedisDenylist  # only who asks for it needs the package

        return RedisDenylist(url)
    raise SystemExit("DENYLIST_URL must begin with sqlite:///, redis:// or rediss://.")
