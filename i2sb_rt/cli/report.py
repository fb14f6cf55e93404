"""What a run tells: one line an image, a bar on a terminal, a summary. JSON goes to stdout, all else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from i2sb_rt.cli import stdout
from i2sb_rt.errors import Exit, I2SBError, alone


def printable(text: str) -> str:
    """Return the text without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


@dataclass
class Report:
    """Counts and prints the images of a run. total: how many there are; as_json, quiet: what is printed.

    each: whether JSON tells of every image, or only of those that failed.
    """

    total: int
    as_json: bool = False
    quiet: bool = False
    each: bool = True
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "skipped": 0, "failed": 0})
    failures: list[tuple[str, I2SBError]] = field(default_factory=list)
    troubles: list[I2SBError] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    _at_work: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_bar(self) -> bool:
        """Whether a progress bar is drawn."""
        return sys.stderr.isatty() and not self.quiet

    def progress(self, name: str, fraction: float) -> None:
        """Draw the bar: an image at work, and how much of it is done, 0 .. 1. Any thread may call."""
        if not self.has_bar:
            return
        with self._lock:
            self._at_work[name] = fraction
            done = sum(self.counts.values())
            filled = round(24 * (done + sum(self._at_work.values())) / self.total)
            bar = "#" * filled + "-" * (24 - filled)
            width = shutil.get_terminal_size().columns
            line = f"[{bar}] {done}/{self.total} {printable(name)}"
            sys.stderr.write("\r\x1b[K" + line[: width - 1])
            sys.stderr.flush()

    def done(self, record: dict[str, Any], error: I2SBError | None = None) -> None:
        """Tell of one image. record: what is known of it, as in the JSON line."""
        with self._lock:
            self.counts[record["status"]] += 1
            self._at_work.pop(record["in"], None)
            if error is not None:
                self.failures.append((record["in"], alone(error)))
            if self.as_json and (self.each or error is not None):
                stdout.say(json.dumps(record))
            self.clear()
            if error is not None:
                print(f"i2sb-rt: {printable(str(error))}", file=sys.stderr)
            elif not (self.quiet or self.has_bar or self.as_json):
                print(line(record), file=sys.stderr)

    def trouble(self, error: I2SBError) -> None:
        """Tell of what failed beside the images, such as a side file; the run goes on and ends with its exit code."""
        with self._lock:
            self.troubles.append(alone(error))
            self.clear()
            print(f"i2sb-rt: {printable(str(error))}", file=sys.stderr)

    def warn(self, text: str) -> None:
        """Print a line of what is done as asked, but cannot be meant."""
        if self.quiet:
            return
        with self._lock:
            self.clear()
            print(f"i2sb-rt: {printable(text)}", file=sys.stderr)

    def finish(self, signal: int | None) -> int:
        """Print the summary and return the exit code. signal: what stopped the run, if anything did."""
        self.clear()
        code = self._exit_code(signal)
        seconds = time.monotonic() - self.begun
        if self.as_json:
            facts: dict[str, Any] = {**self.counts, "not_done": self._not_done}
            if self.troubles:
                facts["errors"] = [told(error) for error in self.troubles]
            stdout.say(json.dumps({"summary": {**facts, "seconds": round(seconds, 3), "exit_code": code}}))
        if self.total > 1:
            if self.failures:
                print(f"i2sb-rt: {len(self.failures)} of {self.total} failed:", file=sys.stderr)
            for name, error in self.failures:
                print(f"  {printable(name)} ({error.code})", file=sys.stderr)
        if not (self.quiet or self.as_json) and (self.total > 1 or self.has_bar):
            counts = {**self.counts, "not done": self._not_done}
            parts = [f"{count} {status}" for status, count in counts.items() if count or status == "ok"]
            print(f"{', '.join(parts)} in {seconds:.1f} s", file=sys.stderr)
        return code

    @property
    def _not_done(self) -> int:
        """How many images were not tried, or not finished, as the run was stopped."""
        return self.total - sum(self.counts.values())

    def _exit_code(self, signal: int | None) -> int:
        if signal is not None:
            return 128 + signal
        if not self.failures:
            return int(self.troubles[0].exit_code if self.troubles else Exit.OK)
        if len(self.failures) < self.total:
            return int(Exit.SOME_FAILED)
        codes = {int(error.exit_code) for _, error in self.failures}
        return codes.pop() if len(codes) == 1 else int(Exit.ALL_FAILED)

    def clear(self) -> None:
        """Take the bar away, so that other lines can be printed."""
        if self.has_bar:
            sys.stderr.write("\r\x1b[K")


def told(error: I2SBError) -> dict[str, str]:
    """Return what JSON says of an error."""
    return {"code": error.code, "message": str(error)}


def line(record: dict[str, Any]) -> str:
    """Return what is printed of an image that did not fail."""
    names = printable(" -> ".join(record[key] for key in ("in", "out") if key in record))
    if record["status"] == "skipped":
        return f"{names} (skipped: it exists)"
    width, height = record.get("out_w", record["w"]), record.get("out_h", record["h"])
    return f"{names} ({width}x{height}, {record['ms']['total'] / 1e3:.2f} s)"
