"""Celery with Redis for broker and results: tasks, and chords of tasks, on two forked processes.
Each task is done once. Celery's own retries of connections and of publishing are switched off."""

import os
import subprocess
import sys

import redis
from celery import Celery, chord

from harness import Threads, end, watch_output

HOST, PORT = os.environ.get("CLIENT_HOST") or sys.argv[1], os.environ.get("CLIENT_PORT") or sys.argv[2]
URL = f"redis://{HOST}:{PORT}/0"

app = Celery("celery_jobs", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry=False,
    broker_connection_retry_on_startup=False,
    task_publish_retry=False,
    result_backend_always_retry=False,
    result_backend_transport_options={"retry_policy": {"max_retries": 0}},
)
notes = redis.Redis.from_url(URL)


@app.task(name="square")
def square(number):
    notes.hincrby("done", f"square {number}", 1)
    return number * number


@app.task(name="total")
def total(numbers, name):
    notes.hincrby("done", f"total {name}", 1)
    return sum(numbers)


def tasks(run):
    """The results are waited for in a subscription; a chord counts its tasks in the backend."""
    number, expected = 0, {}
    while run.going():
        result = square.delay(number)
        run.expect("result", result.get(timeout=20), number * number)
        expected[f"square {number}"] = 1
        parts = range(number + 1, number + 4)
        whole = chord(square.s(part) for part in parts)(total.s(number))
        run.expect("chord", whole.get(timeout=20), sum(part * part for part in parts))
        expected.update({f"square {part}": 1 for part in parts})
        expected[f"total {number}"] = 1
        number += 4
        run.did("tasks")
    done = {job.decode(): int(times) for job, times in notes.hgetall("done").items()}
    run.expect("tasks done once", done, expected)
    run.expect("left", (notes.llen("celery"), notes.hlen("unacked")), (0, 0))


if __name__ == "__main__":
    run = Threads([tasks])
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-B", "-m", "celery", "--app", "celery_jobs", "worker"]
    worker = subprocess.Popen(
        [*command, "--concurrency", "2", "--loglevel", "WARNING"],
        cwd=here,
        env={**os.environ, "CLIENT_HOST": HOST, "CLIENT_PORT": PORT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch_output(run, worker.stderr)
    run.until_stop()
    end(worker)
    run.summary()
