"""A progress bar: one line that grows on a terminal, one line for each thing done elsewhere."""

import sys


class Progress:
    """Count what is done; what went wrong stays on the screen."""

    def __init__(self, total: int) -> None:
        self.total, self.finished, self.failures = total, 0, 0

    def __enter__(self) -> "Progress":
        return self

    def done(self, what: str, wrong: str = "") -> None:
        """Count one more; say at once what is wrong with it."""
        self.finished += 1
        self.failures += bool(wrong)
        filled = 30 * self.finished // max(self.total, 1)
        line = f"[{'#' * filled}{'.' * (30 - filled)}] {self.finished}/{self.total} {what}"
        self.clear()
        if wrong:
            print(f"{what}: {wrong}", flush=True)
        print(line[:100], end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar off the screen."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self.clear()
