"""What a test expects, and the words in which it says what it got instead."""

import json
import re
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import httpx

from tests.server import Server

LONGEST = 300
BACKSLASHES = '\\"' * 32_000  # Python before 3.11.10 and 3.12.6 takes back each one by copying all (CVE-2024-7592)
Header = str | re.Pattern[str] | None
# While a grade is made: headers, and words of refusals, that alone were wrong, with what was said of the first one.
# Each costs once, wherever it is looked at. None: raise at once.
details: dict[str, str] | None = None


class Wrong(AssertionError):
    """An answer that is not the one it should be. The test's docstring adds what follows from that."""

    def __init__(self, did: str, should: str) -> None:
        super().__init__(f"Your app {did}\nIt should {should}")


def expect(
    response: httpx.Response,
    status: int | Sequence[int],
    body: Any = ...,
    headers: dict[str, Header] | None = None,
    case: str = "",
) -> httpx.Response:
    """Compare an answer with the right one; raise Wrong unless they agree, else return it.

    Several statuses: any of them. A body of `...`: any. A header of None: absent; of text: that text is in it; a
    pattern: it is found. A case says in words what was sent.
    """
    __tracebackhide__ = True
    statuses = (status,) if isinstance(status, int) else status
    headers = headers or {}
    small = [name for name, text in headers.items() if not header_agrees(response.headers.get(name), text)]
    if body is not ... and json_of(response) != body:
        small.append("words")
    grave = response.status_code not in statuses or ("words" in small and response.status_code < 400)
    if grave or small:
        wrong = Wrong(
            f"answered {describe(response, headers)} to {describe_request(response.request)}{case and f' ({case})'}.",
            f"answer {describe_expected(statuses, body, headers)}.",
        )
        if grave or details is None:
            raise wrong
        details.update({name: str(wrong) for name in small if name not in details})
    return response


def ensure(condition: object, did: str, should: str) -> None:
    """Raise Wrong with both half-sentences ("Your app ...", "It should ...") unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        raise Wrong(did, should)


def ensure_logins_fail_alike_in_time(client: httpx.Client) -> None:
    """Compare the fastest of some wrong logins, of users and of nobody; raise Wrong if one takes half as long again."""
    __tracebackhide__ = True
    seconds: dict[str, list[float]] = {"alice": [], "bob": [], "mallory": []}
    for _ in range(6):  # a machine is noisy, which only makes a login slower
        for username in [*seconds] * 5:
            begin = time.perf_counter()
            expect(client.post("/login", data={"username": username, "password": "not the password"}), 401)
            seconds[username].append(time.perf_counter() - begin)
        fastest = {username: min(measured) for username, measured in seconds.items()}
        if max(fastest.values()) < min(fastest.values()) * 1.5:
            return
    raise Wrong(
        "takes " + ", ".join(f"{took * 1000:.1f} ms for {username}" for username, took in fastest.items()) + ".",
        "take about the same time: check an unknown user's password against a hash that is nobody's, as slow as all.",
    )


def ensure_others_are_answered_while_ten_log_in(client: httpx.Client) -> None:
    """Compare the slowest GET beside ten logins with all of them together; raise Wrong if it takes half as long.

    Machines are noisy, so it measures three times before it says so: in an event loop that stands still, a GET waits
    for nearly all of the ten each time; on a busy machine for one after the other, so that few are answered meanwhile.
    """
    __tracebackhide__ = True
    url, form = client.base_url, "username=alice&password=not+the+password"
    head = f"POST /login HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nContent-Type: application/x-www-form-urlencoded"
    request = f"{head}\r\nContent-Length: {len(form)}\r\nConnection: close\r\n\r\n{form}".encode()
    for _ in range(3):
        with ExitStack() as opened:
            logins = [
                opened.enter_context(socket.create_connection((url.host, url.port or 80), timeout=10))
                for _ in range(10)
            ]
            expect(client.get("/"), 200)
            waits, begin = [0.0], time.perf_counter()
            for login in logins:
                login.sendall(request)
            while logins:
                sent = time.perf_counter()
                expect(client.get("/"), 200)
                waits.append(time.perf_counter() - sent)
                answered, _, _ = select.select(logins, [], [], 0)
                logins = [login for login in logins if login not in answered]
            slowest, together = max(waits), time.perf_counter() - begin
        if slowest < together / 2 and (len(waits) > 20 or together < 0.1):
            return
    raise Wrong(
        f"answered a GET after {slowest * 1000:.0f} ms, beside ten logins that took {together * 1000:.0f} ms together.",
        "check passwords where others need not wait: in a thread, one at a time.",
    )


def ensure_a_long_cookie_is_read_soon(client: httpx.Client, path: str) -> None:
    """Raise Wrong if the app reads a cookie for seconds, in which it answers nobody: a hundredth of one is enough."""
    __tracebackhide__ = True
    begin = time.perf_counter()
    expect(client.get(path, headers={"Cookie": f'a="{BACKSLASHES}"'}, timeout=60), range(200, 500))
    took = time.perf_counter() - begin
    ensure(took < 2, f"took {took:.1f} s to read a Cookie header of 64 kB.", "read no quoted cookies, or no long ones.")


def ensure_it_stops_the_start(server: Server, setting: str, kind: str = "") -> None:
    """Raise Wrong unless the start has failed with a plain sentence that says which setting is meant."""
    __tracebackhide__ = True
    code, case, said = server.wait_until_stopped(), kind and f"({kind}) ", server.log.strip()
    ensure(code != 0, f"{case}exited as if all were well.", "exit with a code other than 0.")
    word = next(word for word in ("key", "https", "denylist") if word in setting.lower())
    ensure(word in said.lower(), f"{case}stopped with: {said}", f"say which setting is meant: {setting}.")
    ensure("Traceback" not in said, f"{case}stopped with: {said}", "say it in one plain sentence.")


def ensure_missing_keys_are_warned_of(server: Server, keys: int) -> None:
    """Raise Wrong unless a line for each key, or one for all of them, warns of it and says what a restart ends."""
    __tracebackhide__ = True
    lines = [line for line in server.log.splitlines() if re.search("warn", line, re.I) and "key" in line.lower()]
    fine = [line for line in lines if re.search("restart", line, re.I)]
    enough = len(fine) >= keys or any(re.search("keys", line, re.I) for line in fine)
    ensure(enough, f"printed: {server.log.strip()}", "warn of each missing key in a line, and say what a restart ends.")


def ensure_random(ids: list[str], which: str) -> None:
    """Raise Wrong unless the ids are long, all different, and alike in no place by more than chance."""
    __tracebackhide__ = True
    alike = [sum(a == b for a, b in zip(x, y, strict=False)) for i, x in enumerate(ids) for y in ids[:i]]
    fine = len(set(ids)) == len(ids) and all(len(one) >= 8 for one in ids) and max(alike) < len(ids[0]) / 2
    ensure(fine, f"gave {which} the ids {ids}.", "make each at random, anew: secrets.token_urlsafe(16).")


def json_of(response: httpx.Response) -> Any:
    """Return the answer's JSON, or its text if it is none."""
    try:
        return response.json()
    except ValueError:
        return response.text


def header_agrees(value: str | None, right: Header) -> bool:
    """Say whether a header is as expected, upper and lower case alike."""
    if value is None or right is None:
        return value is right
    return bool(right.search(value)) if isinstance(right, re.Pattern) else right.lower() in value.lower()


def describe(response: httpx.Response, headers: dict[str, Header]) -> str:
    """Say what came back, in a line."""
    shown = [f"{name}: {response.headers.get(name, '(absent)')}" for name in headers]
    return "; ".join([f"{response.status_code} {short(response.text)}".strip(), *shown])


def describe_request(request: httpx.Request) -> str:
    """Say what was sent, in a line."""
    path = request.url.raw_path.decode()
    sent = [
        f"{name}: {request.headers[name]}"
        for name in ("authorization", "cookie", "origin", "sec-fetch-site")
        if name in request.headers
    ]
    body = request.read().decode("utf-8", "replace")
    return short(" with ".join([f"{request.method} {path}", *sent, *([body] if body else [])]))


def describe_expected(statuses: Sequence[int], body: Any, headers: dict[str, Header]) -> str:
    """Say what should have come back, in a line."""
    some = f"{statuses[0]} to {statuses[-1]}" if isinstance(statuses, range) else " or ".join(map(str, statuses))
    parts = [some + ("" if body is ... else " " + short(json.dumps(body, default=repr)))]
    for name, right in headers.items():
        parts.append(f"no {name}" if right is None else f"{name}: {in_words(right)}")
    return "; ".join(parts)


def in_words(right: str | re.Pattern[str]) -> str:
    """Return the text that is expected in a header; of a pattern, the words in the comment that it begins with."""
    return right if isinstance(right, str) else right.pattern.removeprefix("(?#").partition(")")[0]


def short(text: str) -> str:
    """Return the text in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
