"""Who may log in, and whether a password is right. The same in steps 1 and 3."""

import logging

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from pydantic import BaseModel

log = logging.getLogger("uvicorn.error")  # uvicorn prints this logger; one of our own would need a set-up first


class User(BaseModel):
    """What anyone may see of a user: nothing that helps to log in."""

    username: str
    full_name: str


USERS = {
    "alice": User(username="alice", full_name="Alice Liddell"),
    "bob": User(username="bob", full_name="Bob Stone"),
}
# argon2id, as OWASP recommends. HASHER.hash() makes one more, as slow as the others: else the time tells who exists
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
PASSWORD_HASHES = {
    "alice": "$argon2id$v=19$m=19456,t=2,p=1$WTDukHTsoWvW5Bv2LPHCqw$1y6VSULvBvRqGU812qeit1RpjGzNJrerHEHIJG1nkDQ",
    "bob": "$argon2id$v=19$m=19456,t=2,p=1$wO/yuE/TPhvJUUnHJY33MQ$rbFxTHfwo/5Srs/G4VjX3sirBAAO7xsFmxtDKaF3so8",
}
# The hash of a random password that nobody knows: an unknown name takes as long as a wrong password
NOBODYS_HASH = "$argon2id$v=19$m=19456,t=2,p=1$Tf/TEz9TDIQokQvMXyVpXQ$THaHf8/jhYg4+x6wNguPYooHdahKl6R6MfmVnL6dRgE"
# A check takes a core for 20 ms, and 19 MiB. Several at once would starve every other request.
ONE_AT_A_TIME = CapacityLimiter(1)


async def authenticate(username: str, password: str) -> User | None:
    """Return the user whose password this is; for a wrong one or an unknown name None, after as long a time."""
    password_hash = PASSWORD_HASHES.get(username, NOBODYS_HASH)
    # In a thread: the event loop, which answers everyone, would stand still meanwhile
    matches = await to_thread.run_sync(verify_password, password_hash, password, limiter=ONE_AT_A_TIME)
    user = USERS.get(username) if matches else None
    # Not what was typed: some people type their password into the wrong field.
    log.info("Password of %s: %s", username if username in USERS else "an unknown user", "right" if user else "wrong")
    return user


def verify_password(password_hash: str, password: str) -> bool:
    """Say whether this is the password that was hashed."""
    try:
        return HASHER.verify(password_hash, password)
    except VerifyMismatchError:
        return False
