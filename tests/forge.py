"""Make tokens and session cookies as an attacker would, or as time would: the one place where things are forged.

Nothing here uses python-jose: what signs and reads the app's tokens must not also be what judges them.
"""

import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from itsdangerous import BadSignature, TimestampSigner

HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
Claims = dict[str, Any]


# Tokens


def encode(part: bytes) -> str:
    """Return bytes in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    """Return the bytes of a base64url text without padding."""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sign(header: bytes, payload: bytes, key: str, alg: str = "HS256") -> str:
    """Return a token of any two texts, well signed (RFC 7515 section 3.1)."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(key.encode(), signed.encode(), HASHES[alg]))}"


def token(claims: Any, key: str, alg: str = "HS256", header: dict[str, Any] | None = None) -> str:
    """Return a token with these claims, signed by the key with alg; the header may say something else."""
    head = {"alg": alg, "typ": "JWT"} | (header or {})
    return sign(json.dumps(head).encode(), json.dumps(claims).encode(), key, alg)


def header_of(text: str) -> dict[str, Any]:
    """Return the header of a token, unverified."""
    header: dict[str, Any] = json.loads(decode(text.split(".")[0]))
    return header


def claims_of(text: str) -> Claims:
    """Return the claims of a token, unverified."""
    claims: Claims = json.loads(decode(text.split(".")[1]))
    return claims


def looks_like_a_jwt(text: str) -> bool:
    """Say whether the text has three parts, the first two of them base64url of JSON objects (RFC 7519 section 7.2)."""
    try:
        return text.count(".") == 2 and isinstance(header_of(text), dict) and isinstance(claims_of(text), dict)
    except ValueError:
        return False


def is_signed_by(text: str, key: str) -> bool:
    """Say whether the token's signature is right (HS256)."""
    signed, _, signature = text.rpartition(".")
    return signature == encode(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))


def good_claims(aud: str, sub: str = "alice", seconds: int = 900) -> Claims:
    """Return claims of a login that began a moment ago."""
    now = int(time.time()) - 1
    return {"iss": "cafe", "aud": aud, "sub": sub, "iat": now, "exp": now + seconds}


RIGHT_CLAIMS = "say iss, aud, sub, iat (now, in seconds) and exp, as agreed."


def are_right(claims: Claims, aud: str, seconds: int, sub: str = "alice") -> bool:
    """Say whether these are the claims of a login of a moment ago; aud may be a list of one, times may be floats."""
    times = [claims.get("iat"), claims.get("exp")]
    if not all(isinstance(moment, int | float) for moment in times):
        return False
    who = (claims.get("iss"), claims.get("sub")) == ("cafe", sub) and claims.get("aud") in (aud, [aud])
    when = is_near(times[0], time.time()) and abs(claims["exp"] - claims["iat"] - seconds) < 1
    return who and when


def without(claims: Claims, name: str) -> Claims:
    """Return the claims without one of them."""
    return {claim: value for claim, value in claims.items() if claim != name}


def unsigned_with(alg: Any) -> Callable[[Claims, str], str]:
    """Return a maker of tokens that say this algorithm, and have nothing as their signature."""
    return lambda claims, key: token(claims, key, header={"alg": alg}).rpartition(".")[0] + "."


def replace_part(text: str, number: int, part: str) -> str:
    """Return the token with one of its three parts replaced."""
    parts = text.split(".")
    parts[number] = part
    return ".".join(parts)


def edited(claims: Claims, key: str) -> str:
    """Return a token of someone who wrote another name into it and kept the signature."""
    other = "bob" if claims["sub"] == "alice" else "alice"
    return replace_part(token(claims, key), 1, encode(json.dumps(claims | {"sub": other}).encode()))


def claims_with(name: str, raw: str) -> Callable[[Claims, str], str]:
    """Return a maker of tokens in which one claim is this text of JSON, or of what only Python takes for JSON."""

    def make(claims: Claims, key: str) -> str:
        text = json.dumps(claims | {name: "@"}).replace('"@"', raw)
        return sign(b'{"alg":"HS256","typ":"JWT"}', text.encode(), key)

    return make


def missing(name: str) -> Callable[[Claims, str], str]:
    """Return a maker of tokens that lack one claim."""
    return lambda claims, key: token(without(claims, name), key)


def payload(raw: bytes) -> Callable[[Claims, str], str]:
    """Return a maker of well signed tokens whose payload is no set of claims."""
    return lambda claims, key: sign(b'{"alg":"HS256","typ":"JWT"}', raw, key)


NESTED = b"[" * 1_000
# Claims of types that the claim cannot have. None of them may be accepted, and none may be too much for the app.
ODD_TIMES = ["null", "Infinity", "-Infinity", "NaN", "[]", "[4102444800, 4102444800]", "{}", '"soon"', '""']
ODD_TEXTS = ["null", "[]", "{}", "true", "7", '""', "Infinity", '["{0}", "x"]', '{{"{0}": 1}}', '"x{0}"', '"{0} "']
ODD_TEXTS += ['"\\ud800"']

NO_ALGORITHMS: list[Any] = ["none", "None", "NONE", "nOnE", "HS256", "", None]
OTHER_ALGORITHMS: list[Any] = ["none", "hs256", "HS384", "RS256", "ES256", "dir", "", None, 256, ["HS256"], {}]
BAD_TOKENS: dict[str, Callable[[Claims, str], str]] = {
    "expired an hour ago": lambda claims, key: token(claims | {"exp": int(time.time()) - 3600}, key),
    "expired five seconds ago": lambda claims, key: token(claims | {"exp": int(time.time()) - 5}, key),
    "expired in 1970": lambda claims, key: token(claims | {"exp": 0}, key),
    **{f"without {name}": missing(name) for name in ("iss", "aud", "sub", "iat", "exp")},
    **{f"{name} of {raw}": claims_with(name, raw) for name in ("exp", "iat") for raw in ODD_TIMES},
    **{
        f"{name} of {raw.format(right)}": claims_with(name, raw.format(right))
        for name, right in (("iss", "cafe"), ("aud", "step01"), ("sub", "alice"))
        for raw in ODD_TEXTS
    },
    "from another issuer": lambda claims, key: token(claims | {"iss": "bakery"}, key),
    "for another audience": lambda claims, key: token(claims | {"aud": "bakery"}, key),
    "for several audiences": lambda claims, key: token(claims | {"aud": [claims["aud"], "bakery"]}, key),
    "for an unknown user": lambda claims, key: token(claims | {"sub": "mallory"}, key),
    "for Alice in capitals": lambda claims, key: token(claims | {"sub": "ALICE"}, key),
    **{f"unsigned, alg {alg!r}": unsigned_with(alg) for alg in NO_ALGORITHMS},
    **{f"signed, but alg {said!r}": partial(token, header={"alg": said}) for said in OTHER_ALGORITHMS},
    "signed, but no alg": lambda claims, key: sign(b'{"typ":"JWT"}', json.dumps(claims).encode(), key),
    "by HS384 with the right key": lambda claims, key: token(claims, key, alg="HS384"),
    "by HS512 with the right key": lambda claims, key: token(claims, key, alg="HS512"),
    "by another key": lambda claims, key: token(claims, key + "x"),
    "by an empty key": lambda claims, key: token(claims, ""),
    "by the key None": lambda claims, key: token(claims, "None"),
    "by a key of its own in the header": lambda claims, key: token(
        claims, "mine", header={"jwk": {"kty": "oct", "k": encode(b"mine")}}
    ),
    "edited": edited,
    "with an edited header": lambda claims, key: replace_part(token(claims, key), 0, encode(b'{"alg":"HS256"}')),
    "without its signature": lambda claims, key: token(claims, key).rpartition(".")[0] + ".",
    "with half its signature": lambda claims, key: token(claims, key)[:-22],
    "with another token's signature": lambda claims, key: replace_part(
        token(claims, key), 2, token(claims | {"iat": claims["iat"] - 1}, key).rpartition(".")[2]
    ),
    "of one part": lambda claims, key: token(claims, key).split(".")[1],
    "of two parts": lambda claims, key: token(claims, key).rpartition(".")[0],
    "of four parts": lambda claims, key: token(claims, key) + ".e30",
    "of five parts": lambda claims, key: token(claims, key) + ".e30.e30",
    "of five parts, the three in front": lambda claims, key: "e30.e30." + token(claims, key),
    "of nothing but dots": lambda claims, key: "..",
    "of garbage": lambda claims, key: "garbage",
    "of garbage in three parts": lambda claims, key: "a.b.c",
    "with null as its header": lambda claims, key: sign(b"null", json.dumps(claims).encode(), key),
    "with text as its header": lambda claims, key: sign(b"hello", json.dumps(claims).encode(), key),
    "with a header nested a thousand deep": lambda claims, key: sign(NESTED, json.dumps(claims).encode(), key),
    **{
        f"with {name} as its payload": payload(raw)
        for name, raw in {
            "nothing": b"",
            "text": b"hello",
            "null": b"null",
            "a list": b"[]",
            "a number": b"1e999",
            "bytes": b"\xff\xfe\x00",
            "a nest a thousand deep": NESTED,
        }.items()
    },
}


# Session cookies of Starlette's SessionMiddleware: base64 of a JSON object, signed by itsdangerous


def signer(key: str, age: int = 0) -> TimestampSigner:
    """Return a signer whose clock is some seconds behind."""
    made = TimestampSigner(key)
    made.get_timestamp = lambda: int(time.time()) - age  # type: ignore[method-assign]
    return made


def cookie(data: Any, key: str, age: int = 0) -> str:
    """Return a cookie that carries the data, signed by the key some seconds ago."""
    return signer(key, age).sign(b64encode(json.dumps(data).encode())).decode()


def data_of(value: str, key: str) -> dict[str, Any] | None:
    """Return the session data of a cookie, None if it is not of Starlette's form."""
    try:
        data = json.loads(b64decode(TimestampSigner(key).unsign(value.strip('"'))))
    except (BadSignature, ValueError):
        return None
    return data if isinstance(data, dict) else None


def signed_at(value: str, key: str) -> float:
    """Return when a cookie was signed, in seconds since 1970."""
    _, moment = TimestampSigner(key).unsign(value.strip('"'), return_timestamp=True)
    return moment.timestamp()


def aged(data: Any, seconds: int) -> Any:
    """Return session data as it was written some seconds ago: what is within a minute of now is a time."""
    now = time.time()
    data = replace(data, lambda value: is_near(value, now), lambda value: value - seconds)
    data = replace(data, lambda value: is_near(value, now * 1000, 60_000), lambda value: value - seconds * 1000)
    return replace(data, is_recent_text, lambda value: str(datetime.fromisoformat(value) - timedelta(seconds=seconds)))


def is_near(value: Any, now: float, distance: float = 60) -> bool:
    """Say whether this is a number near now."""
    return type(value) in (int, float) and abs(value - now) < distance


def is_recent_text(value: Any) -> bool:
    """Say whether this is a text in ISO 8601 for a time near now, on a clock of whatever time zone."""
    try:
        apart = datetime.fromisoformat(value).timestamp() - time.time()
    except (TypeError, ValueError):
        return False
    return abs(apart) < 24 * 3600 and (apart + 60) % 900 < 120


def replace(data: Any, is_it: Callable[[Any], bool], new: Callable[[Any], Any]) -> Any:
    """Return a copy of the data in which every value that is it (keys included) is replaced by a new one."""
    if is_it(data):
        return new(data)
    if isinstance(data, dict):
        return {replace(key, is_it, new): replace(value, is_it, new) for key, value in data.items()}
    if isinstance(data, list):
        return [replace(value, is_it, new) for value in data]
    return data


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Return each value in the data with the path that leads to it, the outermost last."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [found for key, value in inside for found in places(value, (*path, key))] + ([(path, data)] if path else [])


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of the data with another value in one place."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy
