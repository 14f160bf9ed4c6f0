"""RQ with its ordinary worker, which forks for every job: each job is done once, and its result is
waited for on a stream."""

import subprocess
import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker, get_current_job

from harness import Threads, end, watch_output


def connection(host, port):
    return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0))


def square(number):
    get_current_job().connection.hincrby("done", number, 1)
    return number * number


def jobs(run):
    number = 0
    while run.going():
        batch = [queue.enqueue(square, number + each) for each in range(3)]
        for job in batch:
            # The library gives up on any answer after five seconds, so it must not wait longer.
            results = (job.latest_result(timeout=3) for _ in range(15))
            result = next((each for each in results if each is not None), None)
            run.expect("result", result and result.return_value, number * number)
            number += 1
            run.did("jobs")
    done = {int(job): int(times) for job, times in queue.connection.hgetall("done").items()}
    run.expect("jobs done once", done, {each: 1 for each in range(number)})
    run.expect("left", (len(queue), queue.failed_job_registry.count), (0, 0))


if __name__ == "__main__":
    host, port, role = sys.argv[1:4]
    if role == "worker":
        Worker(["work"], connection=connection(host, port)).work(logging_level="WARNING")
        sys.exit(0)
    # A worker finds what it is to do by the name of its module.
    from rq_jobs import square

    run = Threads([jobs])
    queue = Queue("work", connection=connection(host, port))
    command = [sys.executable, "-B", __file__, host, port, "worker"]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        watch_output(run, worker.stderr)
    run.until_stop()
    for worker in workers:
        end(worker)
    run.summary()
