"""redis-py with asyncio. Its own default of ten retries is switched off, the rest is untouched."""

import asyncio
import sys

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from harness import Acked, Tasks

PROTOCOL, HOST, PORT, ENGINE = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]


def client(**options):
    return redis.Redis(
        host=HOST,
        port=PORT,
        protocol=PROTOCOL,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        **options,
    )


async def set_get(run):
    while run.going():
        key, value = acked.key(acked.count), acked.value(acked.count)
        await shared.set(key, value)
        acked.count += 1
        run.expect("set_get", await shared.get(key), value)
        run.did("set_get")


async def counter(run):
    expected = 0
    while run.going():
        expected += 1
        run.expect("counter", await shared.incr("counter"), expected)
        run.did("counter")


async def gather(run):
    """Ten commands at once, each on a connection of its own."""
    expected = 0
    while run.going():
        found = await asyncio.gather(*[shared.incr("gather") for _ in range(10)])
        run.expect("gather", sorted(found), [expected + each for each in range(1, 11)])
        expected += 10
        run.did("gather")


async def pipeline(run):
    expected = 0
    while run.going():
        for transaction in (False, True):
            async with shared.pipeline(transaction=transaction) as pipe:
                for _ in range(20):
                    pipe.incr("pipeline")
                results = await pipe.execute()
            run.expect("pipeline", results, [expected + each for each in range(1, 21)])
            expected += 20
        run.did("pipeline")


async def watch(run):
    """Two tasks add to one number under WATCH: no addition may be lost or made twice."""
    added = 0

    async def add():
        nonlocal added

        async def step(pipe):
            value = int(await pipe.get("watch:number") or 0)
            pipe.multi()
            pipe.set("watch:number", value + 1)

        while run.going():
            await shared.transaction(step, "watch:number")
            added += 1
            run.did("watch")

    await asyncio.gather(add(), add())
    run.expect("watch", int(await shared.get("watch:number")), added)


async def pubsub(run):
    heard = []
    subscriber = shared.pubsub()
    await subscriber.subscribe("news")
    await subscriber.psubscribe("n?ws")
    confirmed = 0
    while confirmed < 2:
        message = await subscriber.get_message(timeout=5)
        confirmed += message is not None and message["type"] in ("subscribe", "psubscribe")

    async def listen():
        async for message in subscriber.listen():
            if message["data"] == "end":
                return
            heard.append(int(message["data"]))

    listener = asyncio.create_task(listen())
    number = 0
    while run.going():
        run.expect("publish", await shared.publish("news", number), 2)
        number += 1
        run.did("pubsub")
    await shared.publish("news", "end")
    await asyncio.wait_for(listener, 20)
    expected = [each for each in range(number) for _ in range(2)]
    run.expect("pubsub", heard, expected)
    await subscriber.aclose()


async def lock(run):
    added = 0

    async def add():
        nonlocal added
        while run.going():
            async with shared.lock("lock", timeout=30, sleep=0.002):
                value = int(await shared.get("lock:number") or 0)
                await shared.set("lock:number", value + 1)
            added += 1
            run.did("lock")

    await asyncio.gather(add(), add())
    run.expect("lock", int(await shared.get("lock:number")), added)


async def script(run):
    registered = shared.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    number = 0
    while run.going():
        number += 1
        run.expect("script", await registered(keys=["script"], args=[1]), number)
        run.did("script")


async def blocking_list(run):
    taken = []

    async def work():
        while True:
            element = await shared.blpop(["queue"], timeout=2)
            if element is None:
                continue
            if element[1] == "end":
                return
            taken.append(int(element[1]))
            run.did("blocking_list")

    worker = asyncio.create_task(work())
    number = 0
    while run.going():
        await shared.rpush("queue", number)
        number += 1
        await run.until(lambda: len(taken) >= number)
    await shared.rpush("queue", "end")
    await asyncio.wait_for(worker, 20)
    run.expect("blocking_list", taken, list(range(number)))


async def stream(run):
    read = []

    async def reader():
        last = "0"
        while True:
            found = await shared.xread({"stream": last}, block=2000)
            found = found.items() if isinstance(found, dict) else found or []
            for _, entries in found:
                for last, fields in entries[0] if PROTOCOL == 3 else entries:
                    if fields["n"] == "end":
                        return
                    read.append(int(fields["n"]))
                    run.did("stream")

    working = asyncio.create_task(reader())
    number = 0
    while run.going():
        await shared.xadd("stream", {"n": number})
        number += 1
        await run.until(lambda: len(read) >= number)
    await shared.xadd("stream", {"n": "end"})
    await asyncio.wait_for(working, 20)
    run.expect("stream", read, list(range(number)))


async def main():
    # Every connection that the activities will need at once is opened before they begin.
    warm = [await shared.connection_pool.get_connection() for _ in range(len(activities) + 16)]
    for connection in warm:
        await shared.connection_pool.release(connection)
    await run.until_stop()
    expected = acked.expected()
    found = dict(zip(expected, await shared.mget(list(expected))))
    lost = [key for key, value in expected.items() if found[key] != value]
    run.expect("acknowledged writes that are lost", lost, [])
    run.summary()


acked = Acked("set")
activities = [set_get, counter, gather, pubsub, lock, script]
if ENGINE == "redis":
    activities += [pipeline, watch, blocking_list, stream]
else:
    # EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12.
    activities += [pipeline, watch]
run = Tasks(activities)
shared = client()
asyncio.run(main())
