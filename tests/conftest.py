"""Which app is judged, how the tests reach it, and how they speak when it is wrong."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.expect import Wrong
from tests.server import Server, launch, stop

ROOT = Path(__file__).parent.parent
# Used by nothing but these tests. Not of one length, so that mixing them up shows.
JWT_KEY = "tests-sign-their-tokens-with-this-key"
SESSION_KEY = "tests-sign-their-session-cookies-with-this-key"

NO_ANSWER: dict[type[Exception], str] = {
    httpx.ReadTimeout: "Your app takes connections and does not answer.",
    httpx.ConnectTimeout: "Your app does not take connections.",
    httpx.ConnectError: "Your app is no longer there: it has crashed, or has ended itself.",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the three ways to say which app is judged."""
    group = parser.getgroup("judged app", "which app is judged (default: the step of this repository)")
    group.addoption("--app", metavar="MODULE:ATTRIBUTE", help="any ASGI app, as uvicorn would find it from here")
    group.addoption("--url", metavar="URL", help="a server that runs; its keys: JWT_SECRET_KEY and SESSION_SECRET_KEY")
    group.addoption(
        "--denylist-url", metavar="URL", help="step 3: the DENYLIST_URL to use (default: a new SQLite file)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what cannot be meant."""
    if config.getoption("--app") and config.getoption("--url"):
        raise pytest.UsageError(
            "--app and --url exclude each other: one starts an app, the other judges a running one."
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Add to a failure where the app has crashed meanwhile, as its log says."""
    judged = getattr(item, "funcargs", {}).get("server")
    begin = judged.log_file.stat().st_size if judged and judged.log_file else 0
    try:
        yield
    except Exception as error:
        time.sleep(0.02)  # the answer comes a moment before the log
        if crash := judged.crash_since(begin) if judged else "":
            error.add_note(f"Its log says: {crash}.")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Put what went wrong, and what follows from it, in plain words before any traceback."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, Wrong):
        said = [str(error), " ".join((getattr(item, "function", item).__doc__ or "").split())]
    elif isinstance(error, httpx.TransportError):
        said = [NO_ANSWER.get(type(error), "Your app broke off the connection, after a server error or in a crash.")]
    else:
        return report
    traceback = "\n".join(line for line in str(report.longrepr).splitlines() if not line.startswith("E "))  # type: ignore[attr-defined]
    report.longrepr = "\n".join([*said, *getattr(error, "__notes__", []), "", traceback])  # type: ignore[attr-defined]
    return report


Launch = Callable[..., Server]  # starts the judged app anew, with other settings by name; None takes one away
# Opens a browser (an HTTP client with a cookie jar), if asked with a copy of these cookies and `to` another server
Browser = Callable[..., httpx.Client]


def key_of(config: pytest.Config, name: str, ours: str) -> str:
    """Return the key of the judged app: what the tests gave it, or what it says in the environment beside --url."""
    if not config.getoption("--url"):
        return ours
    if name not in os.environ:
        pytest.exit(f"--url needs the key of that server, to forge with it what it must refuse: set {name}.", 4)
    return os.environ[name]


@pytest.fixture(scope="session")
def jwt_key(pytestconfig: pytest.Config) -> str:
    """The key that signs the tokens of the judged app."""
    return key_of(pytestconfig, "JWT_SECRET_KEY", JWT_KEY)


@pytest.fixture(scope="session")
def session_key(pytestconfig: pytest.Config) -> str:
    """The key that signs the session cookies of the judged app."""
    return key_of(pytestconfig, "SESSION_SECRET_KEY", SESSION_KEY)


@pytest.fixture(scope="module")
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Start the judged app with settings of the test's own; every server is stopped in the end."""
    if request.config.getoption("--url"):
        pytest.skip("needs to start the app itself: a server that already runs (--url) cannot be started anew")
    app, folder = request.config.getoption("--app"), request.config.invocation_params.dir
    if not app:
        app, folder = f"{request.module.STEP}.main:app", ROOT
    files = tmp_path_factory.mktemp("server")
    defaults: dict[str, str | None] = {
        "JWT_SECRET_KEY": JWT_KEY,
        "SESSION_SECRET_KEY": SESSION_KEY,
        "DENYLIST_URL": request.config.getoption("--denylist-url") or f"sqlite:///{files / 'denylist.sqlite3'}",
    }
    servers: list[Server] = []

    def start_one(**changes: str | None) -> Server:
        settings = {name: value for name, value in (defaults | changes).items() if value is not None}
        servers.append(launch(app, folder, files / f"{len(servers)}.log", settings))
        return servers[-1]

    yield start_one
    stop(servers)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Server:
    """The judged app, running. What the module's tests start beside it starts now, all at once: a start takes long."""
    url = request.config.getoption("--url")
    if url:
        running = Server(url.rstrip("/"))
        if not running.answers():
            pytest.exit(f"Nothing answers at {url}: start the server first.", 4)
        return running
    start: Launch = request.getfixturevalue("start")
    judged = start().wait_until_ready()
    needed = {name for item in request.session.items if item.path == request.path for name in item.fixturenames}  # type: ignore[attr-defined]
    for name in sorted(needed & set(getattr(request.module, "STARTED_EARLY", ()))):
        request.getfixturevalue(name)
    return judged


def as_from(url: str, cookies: httpx.Cookies | dict[str, str] | None) -> httpx.Cookies | None:
    """Return cookies as the server itself would have set them: httpx sends others beside the ones that replace them."""
    if not isinstance(cookies, dict):
        return cookies
    jar, host = httpx.Cookies(), httpx.URL(url).host
    for name, value in cookies.items():
        jar.set(name, value, domain=host if "." in host else f"{host}.local")
    return jar


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    """Open browsers on the judged app; each has cookies of its own."""
    opened: list[httpx.Client] = []

    def open_one(cookies: httpx.Cookies | dict[str, str] | None = None, to: Server | None = None) -> httpx.Client:
        # No TLS and no proxy are needed, and setting them up would take longer than the test.
        transport = httpx.HTTPTransport(verify=False)
        url = (to.wait_until_ready() if to else server).url
        opened.append(
            httpx.Client(base_url=url, cookies=as_from(url, cookies), transport=transport, trust_env=False, timeout=10)
        )
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def client(browser: Browser) -> httpx.Client:
    """One browser, nothing in its cookie jar."""
    return browser()
