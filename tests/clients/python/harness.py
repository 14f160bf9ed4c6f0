"""Talks to the driver (tests/clients/driver.rs) and keeps count of what each activity does.

An activity is a loop that goes on while `run.going()`; it calls `run.did(name)` for each thing that
it has done and checked. What it raises is an error of the library; what it finds out by checking
goes to `run.wrong`.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
import traceback

PATIENCE_S = 60
# What each activity has to do between two switchovers.
STEPS = 5
TEXTS_MAX = 20


class Run:
    def __init__(self, names):
        self.counts = {name: 0 for name in names}
        self.errors = []
        self.wrongs = []
        self.stopping = threading.Event()
        self.changed = threading.Condition()

    def going(self):
        return not self.stopping.is_set()

    def did(self, name, count=1):
        with self.changed:
            self.counts[name] += count
            self.changed.notify_all()

    def error(self, name, error):
        traceback.print_exception(error)
        self._note(self.errors, f"{name}: {error!r}")

    def wrong(self, text):
        self._note(self.wrongs, text)

    def expect(self, name, found, expected):
        if isinstance(found, list) and isinstance(expected, list):
            same = 0
            while found[same : same + 1] == expected[same : same + 1] != []:
                same += 1
            found, expected = found[same:], expected[same:]
            name = f"{name}, after the first {same}"
        if found != expected:
            self.wrong(f"{name}: {str(found)[:200]} instead of {str(expected)[:200]}")

    def _note(self, texts, text):
        with self.changed:
            if len(texts) < TEXTS_MAX:
                texts.append(text)
            self.changed.notify_all()

    def each_goes_on(self):
        """Waits until every activity has gone on for some steps. What stands still is named."""
        with self.changed:
            before = dict(self.counts)
            deadline = time.monotonic() + PATIENCE_S
            while True:
                still = [name for name, count in self.counts.items() if count < before[name] + STEPS]
                # An activity that has failed is over; the summary says why.
                if not still or self.errors:
                    return
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    self.errors.append(f"nothing more from {still}")
                    return

    def serve(self):
        """Answers the driver until it says stop."""
        self.each_goes_on()
        say("ready")
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stopping.set()
                return
            self.each_goes_on()
            say("marked")
        # Without a driver nobody reads a summary.
        sys.exit(1)

    def summary(self):
        say(json.dumps({"done": self.counts, "errors": self.errors, "wrong": self.wrongs}))


def say(text):
    print(text, flush=True)


class Threads(Run):
    """Runs each activity, a function of this run, in a thread of its own."""

    def __init__(self, activities):
        super().__init__([activity.__name__ for activity in activities])
        self.threads = [
            threading.Thread(target=self._live, args=[activity], daemon=True)
            for activity in activities
        ]

    def _live(self, activity):
        try:
            activity(self)
        except Exception as error:
            self.error(activity.__name__, error)

    def until_stop(self):
        for thread in self.threads:
            thread.start()
        self.serve()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            if thread.is_alive():
                self.wrong(f"a thread did not end: {thread}")


class Tasks(Run):
    """Runs each activity, an asynchronous function of this run, as a task of one loop."""

    def __init__(self, activities):
        super().__init__([activity.__name__ for activity in activities])
        self.activities = activities

    async def _live(self, activity):
        try:
            await activity(self)
        except Exception as error:
            self.error(activity.__name__, error)

    async def until(self, condition):
        """Waits for a condition that other tasks bring about, or for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition() and not self.errors and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    async def until_stop(self):
        tasks = [asyncio.create_task(self._live(activity)) for activity in self.activities]
        await asyncio.to_thread(self.serve)
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
        if late:
            self.wrong(f"tasks did not end: {late}")


def end(process):
    """A process that has nothing more to do; how long it takes over its end is its own affair."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def watch_output(run, output):
    """What another process of this client says goes to the log; an error that it tells counts."""

    def read():
        for line in output:
            print(line, end="", file=sys.stderr)
            if run.going() and any(word in line for word in ("Error", "ERROR", "Connection")):
                run.error("worker", RuntimeError(line))

    threading.Thread(target=read, daemon=True).start()


class Acked:
    """Remembers every acknowledged write of a series, to find all of them again."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.count = 0

    def key(self, number):
        return f"{self.prefix}:{number % 2000}"

    def value(self, number):
        return f"{self.prefix}-value-{number}"

    def expected(self):
        return {self.key(number): self.value(number) for number in range(self.count)}
