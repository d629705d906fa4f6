"""The three pages, in a real Chromium, as a person uses them; and FastAPI's own page of step 1."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import urlopen

import fastapi_offline
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, ViewportSize, expect

from tests.project.browser import add, chromium, fill_in_login, log_in, press
from tests.project.conftest import NO_REDIS, ROOT, STEP1, STEP2, STEP3, STEPS, StartStep
from tests.server import Server, stop

SIZES: dict[str, ViewportSize] = {"phone": {"width": 360, "height": 740}, "wide": {"width": 1440, "height": 900}}
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser, servers: dict[str, Server]) -> Iterator[Open]:
    """Open a step's page in a browser of its own: nobody else's cookies. Whatever it may not do fails the test."""
    opened, complaints = ExitStack(), list[str]()

    def open_one(step: str | Server, size: str = "wide", scheme: Literal["light", "dark"] = "light") -> Page:
        url = servers[step].url if isinstance(step, str) else step.url
        context = browser.new_context(
            viewport=SIZES[size],
            has_touch=size == "phone",
            color_scheme=scheme,
            reduced_motion="reduce",
            base_url=url,
        )
        context.set_default_timeout(10_000)
        page = opened.enter_context(context).new_page()

        def notice_request(request: Request) -> None:
            if not request.url.startswith((f"{url}/", "data:")):
                complaints.append(f"request to another origin: {request.url}")

        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", notice_request)
        page.goto("/")
        return page

    with opened:
        yield open_one
    # Chromium itself reports each answer of 400 and more, and each request without an answer.
    assert [text for text in complaints if not text.startswith("console: Failed to load resource")] == []


def cookies(page: Page) -> dict[str, dict[str, Any]]:
    """Return the cookies as the browser has stored them, by name; no script sees them so."""
    return {str(cookie["name"]): dict(cookie) for cookie in page.context.cookies()}


def cookie_header(page: Page) -> str:
    """Return the Cookie header as a person would copy it from the browser's tools."""
    return "; ".join(f"{name}={cookie['value']}" for name, cookie in cookies(page).items())


def edit(page: Page, change: str) -> None:
    """Type over a part of the payload ("old -> new"), and send."""
    old, new = change.split(" -> ")
    field = page.get_by_label("Payload")
    field.fill(field.input_value().replace(old, new))
    press(page, "Send")


def send(page: Page, what: str) -> None:
    """Paste a token into step 1, or a Cookie header into step 3, and send."""
    page.get_by_label("Token", exact=True).or_(page.get_by_label("Cookie header")).fill(what)
    press(page, "Send")


def shows(page: Page, *texts: str) -> None:
    """Wait until each of these texts can be seen."""
    for text in texts:
        expect(page.get_by_text(text).filter(visible=True).first).to_be_visible()


# Every page


SOURCES = {step: (ROOT / step / "page.html").read_text(encoding="utf-8") for step in STEPS}
SHARED = {"in all three pages": STEPS, "in steps 1 and 3": [STEP1, STEP3], "in steps 2 and 3": [STEP2, STEP3]}


@pytest.mark.parametrize("where", SHARED)
def test_the_shared_parts_are_the_same_to_the_letter(where: str) -> None:
    """Otherwise a learner who compares two pages sees noise instead of the lesson."""
    part = re.compile(rf"The same {where}: begin.*?The same {where}: end", re.DOTALL)
    first, *others = [part.findall(SOURCES[step]) for step in SHARED[where]]

    assert first
    assert all(parts == first for parts in others)


@pytest.mark.parametrize("step", STEPS)
def test_only_script_with_the_nonce_of_this_answer_runs(
    step: str, browser: Browser, servers: dict[str, Server]
) -> None:
    """Otherwise whoever smuggles a word into the page acts as its user."""
    hostile = """<script>document.title = "hacked"</script><img src="/nothing" onerror="document.title = 'hacked'">
                 <script src="/hostile.js"></script><script nonce="NONCE">document.title = "hacked"</script>"""

    def smuggle(policy: bool) -> str:
        page = browser.new_page()

        def answer(route: Route) -> None:
            real = route.fetch()
            headers = {} if policy else {"content-security-policy": ""}
            body = real.text().replace("</body>", f"{hostile}</body>")
            route.fulfill(response=real, body=body, headers=real.headers | headers)

        script = "document.title = 'hacked'"
        page.route("**/hostile.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
        page.route(f"{servers[step].url}/", answer)
        page.goto(servers[step].url, wait_until="networkidle")
        title = page.title()
        page.close()
        return title

    assert smuggle(policy=False) == "hacked"
    assert smuggle(policy=True) != "hacked"


@pytest.mark.parametrize("step", STEPS)
def test_the_policy_allows_the_page_its_own_origin_and_nothing_else(step: str, servers: dict[str, Server]) -> None:
    answers = [urlopen(servers[step].url) for _ in range(2)]
    policies = [answer.headers["Content-Security-Policy"] for answer in answers]
    nonces = [re.findall(r"'nonce-([\w-]{22,})'", policy) for policy in policies]

    assert policies[0].replace(nonces[0][0], "x") == (
        "default-src 'nonce-x'; connect-src 'self'; img-src data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    assert nonces[0] != nonces[1]
    assert all(f'nonce="{nonce}"'.encode() in answer.read() for answer, [nonce] in zip(answers, nonces, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", STEPS)
def test_the_page_fits_and_everybody_can_use_it(step: str, size: str, scheme: str, open_page: Open) -> None:
    """Checked by axe at the start, and with as much on the page as there can be."""
    page = open_page(step, size, scheme)
    check_view(page)

    if step != STEP1:
        add(page, "tea")
    if step != STEP2:
        fill_in_login(page, "alice", "wrong")
        shows(page, "Incorrect username or password.")
        log_in(page, "alice")
    page.locator("textarea").last.fill("eyJh.bGci.nonsense")
    press(page, "Send")
    expect(page.locator("#send-error")).not_to_be_empty()
    check_view(page)


def check_view(page: Page) -> None:
    """Fail on what axe finds, and on a page that is wider than the screen."""
    found = Axe().run(page, options={"rules": {"target-size": {"enabled": True}}})

    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    links = page.eval_on_selector_all("nav a", "links => links.map((link) => link.offsetTop)")
    assert len(set(links)) == 1, "the links to the parts of the page take more than one line"


def tab_to(page: Page, script: str, wanted: str) -> None:
    """Press Tab until the script says what is wanted; AssertionError after 50 times."""
    for _ in range(50):
        page.keyboard.press("Tab")
        if page.evaluate(script) == wanted:
            return
    raise AssertionError(f"The keyboard does not come to {wanted}.")


def test_the_keyboard_alone_is_enough_and_shows_where_it_is(open_page: Open) -> None:
    page = open_page(STEP3)
    expect(page.get_by_text("espresso, 2.50")).to_be_visible()

    for text in ("alice", "wonderland"):
        tab_to(page, "document.activeElement.localName", "input")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Alice Liddell").first).to_be_visible()
    tab_to(page, "document.activeElement.ariaLabel", "Add tea")
    page.keyboard.press("Space")

    expect(page.get_by_text("1 × tea")).to_be_visible()


@pytest.mark.parametrize("step", STEPS)
def test_whatever_the_server_says_is_shown_as_text(step: str, open_page: Open) -> None:
    """Otherwise a name, a token or an item of the menu brings its own script along."""
    hostile = "<img src=x>"
    claims = {"sub": hostile, "jti": hostile, "iat": 0, "exp": 4_000_000_000}
    part = base64.b64encode(json.dumps({"cart": hostile, **claims}).encode()).decode().rstrip("=")
    answers: dict[str, Any] = {
        "/login": {"access_token": f"{part}.{part}.{hostile}", "username": hostile, "full_name": hostile},
        "/me": {"username": hostile, "full_name": hostile},
        "/menu": [{"item": hostile, "price_cents": 1}],
        "/session": {
            "claims": claims,
            "data": {hostile: hostile, "renewed": 1, "cart": {hostile: 1}},
            "cookie": f"{part}.{hostile}.x",
        },
        "/visits": {"detail": hostile},
    }
    page = open_page(step)

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        status = 409 if path == "/visits" else 200
        route.fulfill(status=status, json=answers[path]) if path in answers else route.fallback()

    page.route("**/*", answer)
    page.reload()
    if step == STEP2:
        press(page, "Count a visit")
    else:
        fill_in_login(page, "alice")
        press(page, "Who am I?")

    places = {
        STEP1: ["#strip", "#claims", "#name", "#log"],
        STEP2: ["#menu", "#cart", "#strip", "#notes", "#do-error", "#log"],
        STEP3: ["#menu", "#cart", "#claims", "#data", "#who", "#login-note", "#log"],
    }
    for place in places[step]:
        expect(page.locator(place)).to_contain_text(hostile)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("step", STEPS)
def test_the_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    step: str, open_page: Open, start_step: StartStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_step(step).wait_until_ready()
    page = open_page(server)
    press(page, "Count a visit") if step == STEP2 else log_in(page, "alice")

    stop([server])
    press(page, "Count a visit" if step == STEP2 else "Who am I?")
    expect(page.get_by_role("alert").filter(has_text="The server does not answer. Start it again")).to_be_visible()
    monkeypatch.setattr("tests.server.free_port", lambda: urlsplit(server.url).port)
    start_step(step, JWT_SECRET_KEY="a-new-key" * 4, SESSION_SECRET_KEY="another-new-key" * 4)

    expect(page.get_by_text("The server does not answer")).to_have_count(0)
    lost = {
        STEP1: "The server refuses this token now",
        STEP2: "The server got this cookie and did not believe it",
        STEP3: "The login is over",
    }
    shows(page, lost[step])


@pytest.mark.parametrize("step", [STEP1, STEP3])
def test_the_log_shows_what_travels_but_no_password(step: str, open_page: Open) -> None:
    page = open_page(step)
    log_in(page, "alice")
    entry = page.get_by_role("log").get_by_role("listitem").filter(has_text="POST /login")

    expect(entry).to_contain_text("200")
    expect(entry).to_contain_text("username=alice password=•••")
    assert "wonderland" not in page.get_by_role("log").inner_text()
    assert page.url.endswith("/")


# What "Try this" proposes: what a person does, what of it is ticked then, and what the page shows


def reload(page: Page, _: str) -> None:
    page.reload()


def copy_cookies(page: Page, _: str) -> None:
    page.get_by_label("Cookie header").fill(cookie_header(page))


TRIES: dict[str, list[tuple[Callable[[Page, str], object], str, str, *tuple[str, ...]]]] = {
    STEP1: [
        (log_in, "bob", ""),
        (send, "nonsense", "", "Refused (401)", 'WWW-Authenticate: Bearer error="invalid_token"'),
        (log_in, "alice", "login"),
        (edit, "alice -> bob", "edit", "Refused (401). The signature does not fit"),
        (press, "Log out", "", "The server was not even asked", "No token, no cookie. (What stands in the field Token"),
        (edit, "bob -> alice", "logout", "Accepted: the server takes you for Alice Liddell."),
        (reload, "", "reload", "Nothing. You reloaded, and the token was only in a variable"),
    ],
    STEP2: [
        (press, "Count a visit", "", "Visits: 1"),
        (add, "espresso", ""),
        (reload, "", "", "1 × espresso", "Total: 2.50"),
        (press, "Remove espresso", "", "Empty."),
        (press, "Send", "", "no script writes over it. Press Forget me first."),
        (press, "Count a visit", "visit", "Visits: 2"),
        (add, "tea", "cart"),
        (add, "tea", "", "2 × tea, 6.00"),
        (reload, "", "reload", "2 × tea, 6.00", "Total: 6.00"),
        (press, "Forget me", "forget", "The browser was told to drop the cookie", "Visits: 0", "Empty."),
        (press, "Send", "copy", "Accepted, whoever sends it.", "Visits: 2", "2 × tea"),
        (edit, "2 -> 1000", "edit", "Not believed: the signature does not fit.", "did not believe it", "Visits: 0"),
    ],
    STEP3: [
        (add, "espresso", ""),
        (log_in, "alice", ""),
        (add, "tea", ""),
        (log_in, "bob", "", "The login of alice was ended first", "alice, as bob logged in", "Empty."),
        (press, "Log out", "", "Logged out."),
        (reload, "", "", "Not logged in."),
        (add, "tea", "cart", "1 × tea, 3.00"),
        (log_in, "alice", "login", "1 × tea, 3.00"),
        (reload, "", "reload", "Logged in: Alice Liddell", "1 × tea, 3.00"),
        (press, "Check out", "order", "Ordered for 3.00.", "Empty."),
        (add, "sandwich", ""),
        (log_in, "bob", "bob", "The login of alice was ended first", "Empty."),
        (log_in, "alice", ""),
        (copy_cookies, "", ""),
        (press, "Log out", "logout", "Logged out. This browser dropped both cookies"),
        (press, "Send", "copy", "Refused (401). That login is over"),
    ],
}


@pytest.mark.parametrize(("step", "https_only"), [*((step, False) for step in STEPS), (STEP2, True), (STEP3, True)])
def test_what_a_person_tries_is_shown_and_ticked_and_nothing_else_is(
    step: str, https_only: bool, open_page: Open, https: dict[str, Server]
) -> None:
    """Otherwise a learner believes that something was tried which was not, or that nothing came of it."""
    page = open_page(https[step] if https_only else step)
    ticked: list[str] = []

    for deed, argument, tick, *texts in TRIES[step]:
        deed(page, argument)

        shows(page, *texts)
        ticked += [tick] if tick else []
        expect(page.locator("#tries .done")).to_have_count(len(ticked))
        assert page.eval_on_selector_all("#tries .done", "all => all.map((item) => item.dataset.try)") == ticked


# Step 1


def test_step_1_shows_the_token_in_three_parts_and_how_long_it_lasts(open_page: Open) -> None:
    page = open_page(STEP1, "phone")
    shows(page, "Nothing. No token, no cookie.")
    log_in(page, "alice")
    expect(page.get_by_text("Nothing. No token, no cookie.")).to_be_hidden()

    token = page.get_by_label("Token", exact=True).input_value()
    header, payload, signature = (page.locator(f"#strip .{part}").inner_text() for part in ("first", "second", "third"))
    assert token == f"{header}.{payload}.{signature}"
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    for name, value in claims.items():
        expect(page.locator("#claims")).to_contain_text(f"{name}{value}")
    expect(page.locator("#header")).to_have_text('{"alg":"HS256","typ":"JWT"}')
    page.clock.set_fixed_time(claims["iat"] + 60)
    expect(page.locator("#left")).to_have_text("14:00 left")
    page.clock.set_fixed_time(claims["exp"])
    expect(page.locator("#left")).to_have_text("Expired.")
    assert cookies(page) == {}
    assert page.evaluate("JSON.stringify({...localStorage})") == "{}"


@pytest.mark.parametrize("token", ["two words", "gärbage", "x", "a.b.c", "." * 20_000])
def test_step_1_answers_any_pasted_token_in_words(token: str, open_page: Open) -> None:
    page = open_page(STEP1)

    send(page, token)

    expect(page.locator("#send-error")).to_have_text(re.compile("Refused|A token has no spaces|headers are too large"))


def test_step_1_logs_in_through_the_api_s_own_page(browser: Browser, servers: dict[str, Server]) -> None:
    """Swagger UI's files come from a package: FastAPI's page would fetch them from a CDN."""
    files = Path(fastapi_offline.__file__).with_name("static")
    page = browser.new_page()
    fetched: list[str] = []

    def serve(route: Route) -> None:
        fetched.append(route.request.url)
        route.fulfill(path=files / Path(route.request.url).name)

    page.route(re.compile(r"^https://"), serve)
    page.goto(f"{servers[STEP1].url}/docs")
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("username").fill("alice")
    page.get_by_label("password").fill("wonderland")
    press(page, "Apply given OAuth2 credentials")
    press(page, "Close")
    page.locator("#operations-default-me_me_get").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    press(page, "Execute")

    expect(page.locator(".live-responses-table")).to_contain_text('"full_name": "Alice Liddell"')
    assert {Path(url).name for url in fetched} <= {"swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"}
    page.close()


# Step 2


def test_step_2_takes_the_cookie_apart_that_the_browser_holds(open_page: Open) -> None:
    page = open_page(STEP2, "phone")
    shows(page, "Nothing. No cookie is set until")
    assert cookies(page) == {}

    press(page, "Count a visit")
    add(page, "tea")

    cookie = cookies(page)["step02_session"]
    assert page.locator("#strip").inner_text() == cookie["value"]
    assert json.loads(page.locator("#notes").inner_text()) == {"visits": 1, "cart": {"tea": 1}}
    expect(page.locator("#size")).to_have_text(str(len(cookie["value"])))
    expect(page.locator("#written")).to_contain_text(re.compile(r"\d\d/\d\d/20\d\d"))
    expect(page.locator("#readable")).to_have_text("(empty)")


# Step 3


def test_step_3_shows_what_ties_both_cookies_and_the_used_up_order_id(open_page: Open) -> None:
    page = open_page(STEP3, "phone")
    add(page, "tea")
    expect(page.locator("#tie")).to_be_hidden()
    press(page, "Check out")
    expect(page.locator("#do-error")).to_have_text("Not logged in.")
    log_in(page, "alice")
    expect(page.locator("#tie")).to_be_visible()
    assert page.locator("#claims .jti code").inner_text() == page.locator("#data .jti code").inner_text()
    order_id = page.locator("#data .order_id code")
    used = order_id.inner_text()

    press(page, "Check out")
    expect(page.locator("#denylist")).to_contain_text(f"order:{used}")
    expect(order_id).not_to_have_text(used)
    press(page, "Check out")
    expect(page.locator("#do-error")).to_have_text("The cart is empty.")


def test_step_3_gives_a_thief_an_end_at_log_out(open_page: Open) -> None:
    page, thief = open_page(STEP3), open_page(STEP3, "phone")
    log_in(page, "alice")
    copies = cookie_header(page)
    send(thief, copies)
    shows(thief, "You are Alice Liddell now, without a password.")

    press(page, "Log out")
    shows(page, "Logged out. This browser dropped both cookies")
    send(page, f"Cookie: {copies}")
    shows(page, "Refused (401). That login is over")
    press(thief, "Who am I?")

    expect(thief.get_by_role("log")).to_contain_text("Not logged in")
    shows(thief, "The login is over")
    assert cookies(page) == {}


def test_step_3_says_why_the_thief_cannot_use_a_window_that_has_cookies(open_page: Open) -> None:
    page = open_page(STEP3)
    log_in(page, "alice")
    before = cookies(page)

    send(page, "step03_token=x; step03_session=y")
    shows(page, "The browser holds a cookie of its own, which is HttpOnly")
    send(page, "theme=dark")
    shows(page, "That should read: step03_token=")

    assert cookies(page) == before


def test_step_3_counts_the_idle_time_from_what_it_knows(open_page: Open) -> None:
    """At least this long: from `renewed`, or from a change of the cart that this page made later."""
    page = open_page(STEP3)
    log_in(page, "alice")
    login = page.evaluate("claims.iat")
    page.clock.set_fixed_time(login + 200)  # the server's own clock goes on as it did
    page.reload()
    expect(page.locator("#idle-left")).to_have_text("11:40")
    expect(page.locator("#exp-left")).to_have_text("56:40")

    add(page, "tea")

    expect(page.locator("#idle-left")).to_have_text("15:00")
    expect(page.locator("#exp-left")).to_have_text("56:40")


def test_step_3_says_that_nobody_is_let_in_without_the_denylist(open_page: Open, start_step: StartStep) -> None:
    page = open_page(start_step(STEP3, DENYLIST_URL=NO_REDIS).wait_until_ready())
    fill_in_login(page, "alice")
    expect(page.locator("#holds-error")).to_have_text("The denylist is out of reach, try again soon.")

    press(page, "Log out")

    expect(page.locator("#login-error")).to_have_text("The denylist is out of reach, try again soon.")
    assert set(cookies(page)) == {"step03_token", "step03_session"}


@pytest.mark.parametrize("https_only", [False, True])
@pytest.mark.parametrize("step", [STEP2, STEP3])
def test_the_browser_keeps_the_cookies_with_all_their_flags_out_of_reach_for_scripts(
    step: str, https_only: bool, open_page: Open, https: dict[str, Server]
) -> None:
    """Also with the __Host- names, where Chromium takes 127.0.0.1 for as safe as https."""
    page = open_page(https[step] if https_only else step)
    add(page, "tea")
    if step == STEP3:
        log_in(page, "alice")

    prefix = "__Host-" if https_only else ""
    names = {STEP2: {"step02_session"}, STEP3: {"step03_token", "step03_session"}}[step]
    right = {"httpOnly": True, "sameSite": "Lax", "path": "/", "secure": https_only, "domain": "127.0.0.1"}
    before = cookies(page)
    assert {prefix + name for name in names} == set(before)
    for name, cookie in before.items():
        assert cookie | right == cookie
        page.evaluate(f"document.cookie = '{name}=mine; Path=/'")
    assert page.evaluate("document.cookie") == ""
    assert cookies(page) == before
