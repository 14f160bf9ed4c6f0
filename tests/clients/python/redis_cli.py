"""redis-cli and redis-benchmark, which are hiredis with a terminal: loops, a session that reads its
commands from a pipe, mass insertion, a subscriber, and the load that everybody tries first."""

import subprocess
import sys

from harness import Threads

HOST, PORT, ENGINE = sys.argv[1:4]
CLI = ["redis-cli", "-h", HOST, "-p", PORT]


def start(*arguments):
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def loop(run):
    """`-r`: one connection, one command again and again."""
    cli = start(*CLI, "-r", "-1", "-i", "0.005", "incr", "loop")
    for number, line in enumerate(cli.stdout, 1):
        run.expect("loop", line.strip(), str(number))
        run.did("loop")
        if not run.going():
            break
    cli.terminate()


def session(run):
    """Commands from a pipe, transactions among them, on one connection."""
    cli = start(*CLI)
    number = 0

    def ask(command, *expected):
        cli.stdin.write(command + "\n")
        cli.stdin.flush()
        for line in expected:
            run.expect(command, cli.stdout.readline().strip(), line)

    while run.going():
        ask("incr session", str(2 * number + 1))
        ask("multi", "OK")
        ask("incr session", "QUEUED")
        ask("get session", "QUEUED")
        ask("exec", str(2 * number + 2), str(2 * number + 2))
        number += 1
        run.did("session")
    cli.stdin.close()
    cli.wait(20)


def mass_insertion(run):
    """`--pipe` sends as fast as it can and counts the replies; it takes any error for one."""
    count, number = 2000, 0
    while run.going():
        cli = start(*CLI, "--pipe")
        value = f"value-{number}"
        said, _ = cli.communicate("".join(request("RPUSH", "mass", value) for _ in range(count)))
        if f"errors: 0, replies: {count}" not in said or cli.returncode != 0:
            run.error("mass_insertion", RuntimeError(said))
        number += 1
        run.did("mass_insertion")
    found = subprocess.run([*CLI, "llen", "mass"], capture_output=True, text=True, check=True)
    run.expect("mass_insertion", found.stdout.strip(), str(count * number))


def request(*words):
    parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}"


def subscriber(run):
    """Every message, in order, to a redis-cli that only listens."""
    cli = start(*CLI, "subscribe", "news")
    said = lambda: cli.stdout.readline().strip().strip('"')
    confirmation = [said() for _ in range(3)]
    # Newer ones say first how to leave.
    while confirmation[-3] != "subscribe":
        confirmation.append(said())
    publisher = start(*CLI)
    number = 0
    while run.going():
        publisher.stdin.write(f"publish news {number}\n")
        publisher.stdin.flush()
        run.expect("publish", publisher.stdout.readline().strip(), "1")
        run.expect("subscriber", [said() for _ in range(3)], ["message", "news", str(number)])
        number += 1
        run.did("subscriber")
    cli.terminate()
    publisher.terminate()


def benchmark(run):
    """Fifty connections that pipeline. It ends at the first error that it is told."""
    tests = "ping_mbulk,set,get,incr,lpush,rpush,lpop,sadd,hset,spop,zadd,mset"
    count = "3000" if ENGINE == "redis" else "300"
    command = ["redis-benchmark", "-h", HOST, "-p", PORT, "-t", tests]
    while run.going():
        load = start(*command, "-n", count, "-c", "50", "-P", "8", "-r", "1000", "--csv")
        said = ""
        for line in load.stdout:
            said += line
            if line.startswith('"'):
                run.did("benchmark")
        if load.wait(20) != 0:
            run.error("benchmark", RuntimeError(said))
            return


activities = [loop, session, mass_insertion, subscriber, benchmark]
run = Threads(activities)
run.until_stop()
run.summary()
