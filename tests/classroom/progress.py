"""A progress bar: one line that grows on a terminal, one line for each thing done elsewhere."""

import sys


def progress(done: int, total: int, what: str = "", wrong: str = "") -> None:
    """Show how much is done; what is wrong stays on the screen, the bar goes with the last one."""
    on_terminal, filled = sys.stderr.isatty(), 30 * done // max(total, 1)
    print("\r\033[K" if on_terminal else "", end="", file=sys.stderr, flush=True)
    if wrong:
        print(f"{what}: {wrong}", flush=True)
    if done < total or not on_terminal:
        line = f"[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {what}"
        print(line[:100], end="" if on_terminal else "\n", file=sys.stderr, flush=True)
