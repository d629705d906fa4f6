"""What the three notebooks share: start an app, show an exchange, stop the clock, draw.

A step reads its settings when it is imported. So they are set here: keys that
are the same each time, so that the bytes are too, and a denylist of its own.
"""

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from threading import Thread
from typing import Any
from unittest.mock import patch

import httpx
import uvicorn
from IPython.display import display

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # on its first start it would announce itself
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["JWT_SECRET_KEY"] = "for the notebooks only, signs tokens"
os.environ["SESSION_SECRET_KEY"] = "for the notebooks only, signs session data"
os.environ["HTTPS_ONLY"] = "false"
os.environ["DENYLIST_URL"] = f"sqlite:///{FOLDER.name}/denylist.sqlite3"
STARTED: dict[str, subprocess.Popen[bytes]] = {}


def start(step: str, **settings: str) -> str:
    """Start a step under uvicorn, in a process of its own on a free port; return its URL.

    Settings are environment variables that this process alone gets.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UVICORN_", "WEB_CONCURRENCY"))}
    command = [sys.executable, "-m", "uvicorn", f"{step}.main:app", f"--port={port}", "--log-level=error"]
    STARTED[url] = subprocess.Popen(command, cwd=ROOT, env=environment | settings)
    atexit.register(STARTED[url].terminate)
    while STARTED[url].poll() is None:
        try:
            browser(url).get("/")
            return url
        except httpx.ConnectError:
            time.sleep(0.05)
    raise SystemExit(f"{step} did not start.")


def start_from_chapter(step: str, name: str) -> str:
    """Print an app that stands in a step's chapter, save for its imports; start it, and return its URL."""
    chapter = (ROOT / step / "README.md").read_text("utf-8")
    app = chapter.partition(f"runs as my.{name}:app -->\n```python\n")[2].partition("```")[0]
    print("\n\n".join(part for part in app.strip().split("\n\n") if not part.startswith(("import", "from"))))
    folder = Path(FOLDER.name, name)
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(app.replace('"my/', f'"{folder.as_posix()}/'), "utf-8")
    return start(name, PYTHONPATH=FOLDER.name)


def stop(url: str) -> None:
    """Stop a step that start() started."""
    STARTED[url].terminate()
    STARTED[url].wait()


def serve(app: Any) -> str:
    """Start an app that a notebook has made, in a thread on a free port; return its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def browser(url: str, cookies: Any = None) -> httpx.Client:
    """Return a client that keeps cookies, as a browser does; it may begin with a copy of another's."""
    return httpx.Client(base_url=url, cookies=cookies, trust_env=False)


def show(answer: httpx.Response, *headers: str) -> None:
    """Print what was asked and what was answered; of a random value, only how long it is."""
    print(f"{answer.request.method} {answer.request.url.path}  ->  {answer.status_code} {answer.reason_phrase}")
    for name in headers:
        print(f"    {name}: {answer.headers.get(name, '(none)')}")
    if answer.content:
        body = answer.json()
        random = {name: f"({len(body[name])} characters)" for name in ("access_token", "order_id") if name in body}
        print("   ", json.dumps(body | random))


def clock(now: float) -> Any:
    """Stop this process's clock at a time, in seconds since 1970, for the length of a with block."""
    return patch("time.time", return_value=now)


def picture(figure: Figure, words: str) -> None:
    """Show a figure on white, so that it reads well in dark themes too; its words are for who cannot see it."""
    png = BytesIO()
    inside = {"Description": words}  # a test asks the picture itself for its words
    figure.savefig(png, dpi=120, metadata=inside, facecolor="white", bbox_inches="tight", pad_inches=0.15)
    display({"image/png": png.getvalue(), "text/plain": words}, metadata={"image/png": {"alt": words}}, raw=True)


def strip(text: str, *names: str) -> None:
    """Draw a signed text of three parts, each in a colour of its own, 60 characters to a line."""
    parts = list(zip(names, text.split("."), ("#a63c00", "#005a9c", "#00694c"), strict=True))
    colours = [colour for _, part, its_own in parts for colour in [*[its_own] * len(part), "black"]]
    rows = -(-len(text) // 60)
    figure = Figure(figsize=(9, 0.3 * rows + 0.5))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 60), ylim=(rows + 1, -0.5))
    axes.axis("off")
    for place, letter in enumerate(text):
        y, x = divmod(place, 60)
        axes.barh(y, 1.03, 0.85, x, color=colours[place])
        axes.text(x + 0.5, y, letter, color="white", family="monospace", size=14, ha="center", va="center_baseline")
    for x, (name, _, colour) in zip((0, 20, 40), parts, strict=True):
        axes.barh(rows + 0.4, 1, 0.7, x, color=colour)
        axes.text(x + 1.5, rows + 0.4, name, color=colour, size=14, weight="bold", va="center_baseline")
    picture(figure, "In three colours: " + ", ".join(f"{name} {len(part)} characters" for name, part, _ in parts))


def draw(exchange: str) -> None:
    """Draw who says what to whom, from top to bottom, each in a colour of their own (there are three).

    A line is "A -> B: what A says to B", or "A: what A knows or does", which stands in a box.
    """
    lines = [line.strip().partition(": ") for line in exchange.strip().splitlines()]
    names = list(dict.fromkeys(name for who, _, _ in lines for name in who.split(" -> ")))
    size, width, margin = 14, 432, 62  # in points, as all below; large enough for a phone
    apart = (width - 2 * margin) / (len(names) - 1)
    places = {name: margin + apart * number for number, name in enumerate(names)}
    colours = dict(zip(names, (("#005a9c", "#e3eef7"), ("#a63c00", "#faeae2"), ("#00694c", "#e0f0eb")), strict=False))
    arrow = {"arrowstyle": "-|>", "linewidth": 2, "mutation_scale": 18, "shrinkA": 0, "shrinkB": 0}

    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    y = 26.0
    for who, _, words in lines:
        speaker, _, listener = who.partition(" -> ")
        colour, tint = colours[speaker]
        room = abs(places[listener] - places[speaker]) if listener else margin + apart - 28  # up to the next line
        rows = even_rows(words, int(room / size / 0.6))
        text, height = "\n".join(rows), 1.2 * size * len(rows)
        if listener:
            x, y = (places[speaker] + places[listener]) / 2, y + height + 8
            box = {"color": "white", "pad": 1}  # hides the line of who stands between the two
            axes.text(x, y - 5, text, color=colour, size=size, ha="center", va="bottom", bbox=box)
            axes.annotate("", (places[listener], y), (places[speaker], y), arrowprops=arrow | {"color": colour})
            y += 10
        else:
            half = max(TextPath((0, 0), row, size=size).get_extents().width for row in rows) / 2 + 8
            x, y = min(max(places[speaker], half), width - half), y + height + 24  # within the picture
            box = {"boxstyle": "round,pad=0.45", "facecolor": tint, "edgecolor": colour}
            axes.text(x, y - height / 2 - 12, text, size=size, ha="center", va="center", bbox=box)
    for name, x in places.items():
        box = {"boxstyle": "round,pad=0.5", "color": colours[name][0]}
        axes.text(x, 0, name, color="white", size=size, weight="bold", ha="center", va="center", bbox=box)
        axes.plot((x, x), (0, y + 4), color=colours[name][0], linewidth=1.5, zorder=0)
    axes.set(xlim=(0, width), ylim=(y + 4, -16))
    figure.set_size_inches(width / 72, (y + 20) / 72)
    picture(figure, "\n".join("".join(line) for line in lines).replace(" -> ", " to "))


def even_rows(text: str, longest: int) -> list[str]:
    """Break a text into as few rows as it needs, and these about as long as each other."""
    ways = [wrap(text, n, break_long_words=False, break_on_hyphens=False) for n in range(1, longest + 1)]
    return next(rows for rows in ways if len(rows) == len(ways[-1]))
