"""redis-py with threads. Its own default of ten retries is switched off, the rest is untouched."""

import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection
from redis.retry import Retry

from harness import Acked, Threads

PROTOCOL, HOST, PORT, ENGINE = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
KEYS = 1000


def client(**options):
    return redis.Redis(
        host=HOST,
        port=PORT,
        protocol=PROTOCOL,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        **options,
    )


shared = client()


def set_get(run):
    while run.going():
        key, value = acked.key(acked.count), acked.value(acked.count)
        shared.set(key, value)
        acked.count += 1
        run.expect("set_get", shared.get(key), value)
        run.did("set_get")


def large_values(run):
    number = 0
    while run.going():
        value = f"{number}:" + "x" * 100_000
        shared.set("large", value)
        for _ in range(10):
            run.expect("large_values", shared.get("large") == value, True)
        number += 1
        run.did("large_values")


def counter(run):
    expected = 0
    while run.going():
        expected += 1
        run.expect("counter", shared.incr("counter"), expected)
        run.did("counter")


def pipeline(run):
    expected = 0
    while run.going():
        with shared.pipeline(transaction=False) as pipe:
            for _ in range(20):
                pipe.incr("pipeline:counter")
                pipe.rpush("pipeline:list", "x")
            results = pipe.execute()
        numbers = [number for step in range(1, 21) for number in [expected + step] * 2]
        run.expect("pipeline", results, numbers)
        expected += 20
        run.did("pipeline")


def transaction(run):
    expected = 0
    while run.going():
        expected += 1
        with shared.pipeline(transaction=True) as pipe:
            pipe.incr("transaction:counter").hset("transaction:hash", "f", expected)
            pipe.hget("transaction:hash", "f").incr("transaction:counter2")
            results = pipe.execute()
        results[1] = 0
        run.expect("transaction", results, [expected, 0, str(expected), expected])
        run.did("transaction")


def watch(run):
    """Two threads add to one number under WATCH: no addition may be lost or made twice."""
    added = [0, 0]

    def add(place):
        def step(pipe):
            value = int(pipe.get("watch:number") or 0)
            pipe.multi()
            pipe.set("watch:number", value + 1)

        while run.going():
            shared.transaction(step, "watch:number")
            added[place] += 1
            run.did("watch")

    other = threading.Thread(target=guard, args=[run, "watch", lambda: add(1)])
    other.start()
    add(0)
    other.join()
    run.expect("watch", int(shared.get("watch:number")), sum(added))


def guard(run, name, work):
    try:
        work()
    except Exception as error:
        run.error(name, error)


def pubsub(run):
    """A channel, a pattern and both in one subscriber: every message once and in order."""
    heard, by_pattern = [], []
    subscriber = shared.pubsub()
    subscriber.subscribe(news=lambda message: heard.append(int(message["data"])))
    subscriber.psubscribe(**{"n?ws": lambda message: by_pattern.append(int(message["data"]))})
    thread = subscriber.run_in_thread(
        sleep_time=0.1,
        exception_handler=lambda error, *_: (run.error("pubsub", error), thread.stop()),
    )
    confirmed(run, lambda: shared.pubsub_numsub("news")[0][1] == 1 and shared.pubsub_numpat() == 1)
    number = 0
    while run.going():
        run.expect("pubsub", shared.publish("news", number), 2)
        number += 1
        run.did("pubsub")
    confirmed(run, lambda: len(heard) >= number and len(by_pattern) >= number)
    thread.stop()
    thread.join(10)
    run.expect("pubsub", heard, list(range(number)))
    run.expect("pubsub pattern", by_pattern, list(range(number)))


def confirmed(run, condition):
    """Waits for a condition that other threads bring about, and looks at least once a second."""
    deadline = time.monotonic() + 20
    with run.changed:
        while not condition() and time.monotonic() < deadline:
            run.changed.wait(0.02)


def blocking_list(run):
    """A worker waits in BLPOP with a timeout and moves on with BLMOVE: each element once."""
    taken = []

    def work():
        while True:
            element = shared.blpop(["queue", "queue2"], timeout=2)
            if element is None:
                continue
            if element[1] == "end":
                return
            shared.lpush("hand", element[1])
            run.expect("blmove", shared.blmove("hand", "done", 2, "RIGHT", "LEFT"), element[1])
            shared.lpop("done")
            taken.append(int(element[1]))
            run.did("blocking_list")

    worker = threading.Thread(target=guard, args=[run, "blocking_list", work])
    worker.start()
    number = 0
    while run.going():
        shared.rpush("queue", number)
        number += 1
        # The worker is to wait for the next element most of the time.
        confirmed(run, lambda: len(taken) >= number or run.errors)
    shared.rpush("queue", "end")
    worker.join(20)
    run.expect("blocking_list", taken, list(range(number)))


def lock(run):
    """Two threads change a number without any care, under a lock made of Lua scripts."""
    added = [0, 0]

    def add(place):
        while run.going():
            with shared.lock("lock", timeout=30, sleep=0.002) as held:
                value = int(shared.get("lock:number") or 0)
                held.extend(10)
                shared.set("lock:number", value + 1)
            added[place] += 1
            run.did("lock")

    other = threading.Thread(target=guard, args=[run, "lock", lambda: add(1)])
    other.start()
    add(0)
    other.join()
    run.expect("lock", int(shared.get("lock:number")), sum(added))


def script(run):
    """A registered script, and one loaded once and called by its digest ever after."""
    text = "return {redis.call('INCR', KEYS[1]), ARGV[1]}"
    registered = shared.register_script(text)
    digest = shared.script_load("redis.call('INCR', KEYS[1]) return 'by digest'")
    number = 0
    while run.going():
        number += 1
        run.expect("script", registered(keys=["script:a"], args=[number]), [number, str(number)])
        run.expect("evalsha", shared.evalsha(digest, 1, "script:b"), "by digest")
        run.did("script")
    run.expect("script", int(shared.get("script:b")), number)


def scan(run):
    """A scan returns every key that is there from its beginning to its end."""
    with shared.pipeline(transaction=False) as pipe:
        for number in range(KEYS):
            pipe.set(f"scan:{number}", 1)
            pipe.hset("scan-hash", f"field:{number}", number)
        pipe.execute()
    keys = {f"scan:{number}" for number in range(KEYS)}
    fields = {f"field:{number}": str(number) for number in range(KEYS)}
    while run.going():
        missing = keys - set(shared.scan_iter("scan:*", count=100))
        run.expect("scan_iter", sorted(missing), [])
        run.expect("hscan_iter", dict(shared.hscan_iter("scan-hash", count=100)), fields)
        run.did("scan")


def stream(run):
    """A reader that waits for new entries and a group of one: each entry once, in order."""
    shared.xgroup_create("stream", "group", mkstream=True)
    read, claimed = [], []

    def reader():
        last = "0"
        while not read or read[-1] != "end":
            for _, entries in entries_of(shared.xread({"stream": last}, block=2000)):
                for last, fields in entries:
                    read.append(fields["n"])
                    run.did("stream")

    def member():
        while not claimed or claimed[-1] != "end":
            found = shared.xreadgroup("group", "me", {"stream": ">"}, count=1, block=2000)
            for _, entries in entries_of(found):
                for entry, fields in entries:
                    claimed.append(fields["n"])
                    run.expect("xack", shared.xack("stream", "group", entry), 1)

    threads = [
        threading.Thread(target=guard, args=[run, "stream", work]) for work in (reader, member)
    ]
    for thread in threads:
        thread.start()
    number = 0
    while run.going():
        shared.xadd("stream", {"n": number})
        number += 1
        confirmed(run, lambda: len(read) >= number or run.errors)
    shared.xadd("stream", {"n": "end"})
    for thread in threads:
        thread.join(20)
    expected = [str(each) for each in range(number)] + ["end"]
    run.expect("xread", read, expected)
    run.expect("xreadgroup", claimed, expected)
    run.expect("xpending", shared.xpending("stream", "group")["pending"], 0)


def entries_of(found):
    if isinstance(found, dict):
        return [(name, entries[0]) for name, entries in found.items()]
    return found or []


def sorted_set(run):
    number = 0
    while run.going():
        shared.zadd("waiting", {f"m{number}": number})
        run.expect("bzpopmin", list(shared.bzpopmin("waiting", 2)), ["waiting", f"m{number}", number])
        number += 1
        run.did("sorted_set")


def session(run):
    """What a connection is told about itself stays true: its id, its name, its database."""
    alone = client(single_connection_client=True, client_name="alone", db=0)
    own = alone.client_id()
    while run.going():
        run.expect("id", alone.client_id(), own)
        run.expect("name", alone.client_getname(), "alone")
        alone.incr("session")
        run.did("session")
    alone.close()


def cache(run):
    """The library answers reads itself until the server says that a key has changed."""
    # The library asks for Redis 7.4 here; what it uses has been there since Redis 6.
    CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"
    cached = client(cache_config=CacheConfig())
    number = 0
    while run.going():
        number += 1
        shared.set("cached", number)
        seen = lambda: cached.get("cached") == str(number)
        for _ in range(20_000):
            if seen():
                break
        else:
            run.wrong(f"the cache never heard of {number}")
            return
        run.expect("cache", cached.get("cached"), str(number))
        run.did("cache")
    cached.close()


acked = Acked("set")
activities = [set_get, large_values, counter, pipeline, pubsub, lock, script, scan, session]
transactions, blocking = [transaction, watch], [blocking_list, stream, sorted_set]
if ENGINE == "redis":
    activities += transactions + blocking
    if PROTOCOL == 3:
        activities.append(cache)
else:
    # EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12. Its XREAD in RESP3 is
    # not what the library expects.
    activities += blocking if PROTOCOL == 2 else transactions

# Every connection that the activities will need at once is opened before they begin.
warm = [shared.connection_pool.get_connection() for _ in range(len(activities) + 8)]
for connection in warm:
    shared.connection_pool.release(connection)

run = Threads(activities)
run.until_stop()
expected = acked.expected()
found = dict(zip(expected, shared.mget(list(expected))))
lost = [key for key, value in expected.items() if found[key] != value]
run.expect("acknowledged writes that are lost", lost, [])
run.summary()
