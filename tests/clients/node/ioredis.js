// ioredis with reconnecting, resending, its offline queue and retries switched off.
'use strict';

const Redis = require('ioredis');
const { Run, numbers } = require('./harness');

const [host, port, engine] = process.argv.slice(2);
const KEYS = 1000;

async function connection(name, more = {}) {
  const client = new Redis({
    host,
    port,
    lazyConnect: true,
    retryStrategy: null,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    ...more,
  });
  run.watchOver(name, client);
  await client.connect();
  // Once nobody wants it any more, its end is no news.
  leave.push(() => client.disconnect());
  return client;
}

const leave = [];
const acked = new Map();

const activities = {
  // Many commands at once on one connection, answered in the order in which they were asked.
  async many(run) {
    const client = await connection('many');
    for (let number = 0; run.going; number += 20) {
      const batch = numbers(20).map((each) => [`set:${(number + each) % 2000}`, `value ${number + each}`]);
      await Promise.all(batch.map(([key, value]) =>
        client.set(key, value).then((answer) => answer === 'OK' && acked.set(key, value))));
      const found = await Promise.all(batch.map(([key]) => client.get(key)));
      run.expect('many', found, batch.map(([, value]) => value));
      run.did('many');
    }
    const keys = [...acked.keys()];
    run.expect('acknowledged writes', await client.mget(keys), [...acked.values()]);
  },

  async autoPipelining(run) {
    const client = await connection('autoPipelining', { enableAutoPipelining: true });
    for (let number = 0; run.going; number += 20) {
      const found = await Promise.all(numbers(20).map(() => client.incr('auto')));
      run.expect('autoPipelining', found, numbers(20).map((each) => number + each + 1));
      run.did('autoPipelining');
    }
  },

  async pipeline(run) {
    const client = await connection('pipeline');
    for (let number = 0; run.going; number += 20) {
      const pipeline = client.pipeline();
      for (let each = 0; each < 20; each++) pipeline.incr('pipeline');
      const expected = numbers(20).map((each) => [null, number + each + 1]);
      run.expect('pipeline', await pipeline.exec(), expected);
      run.did('pipeline');
    }
  },

  async multi(run) {
    const client = await connection('multi');
    for (let number = 1; run.going; number += 2) {
      const whole = await client.multi().incr('multi').get('multi').exec();
      run.expect('multi', whole, [[null, number], [null, String(number)]]);
      // One by one: other answers arrive between MULTI and EXEC.
      await client.multi({ pipeline: false });
      run.expect('multi queued', await client.incr('multi'), 'QUEUED');
      run.expect('multi one by one', await client.exec(), [[null, number + 1]]);
      run.did('multi');
    }
  },

  async watch(run) {
    const clients = await Promise.all(numbers(2).map(() => connection('watch')));
    let added = 0;
    const add = async (client) => {
      while (run.going) {
        await client.watch('watch');
        const number = Number(await client.get('watch'));
        const answer = await client.multi().set('watch', number + 1).exec();
        if (answer === null) continue;
        added += 1;
        run.did('watch');
      }
    };
    await Promise.all(clients.map(add));
    run.expect('watch', Number(await clients[0].get('watch')), added);
  },

  async pubsub(run) {
    const subscriber = await connection('subscriber');
    const publisher = await connection('publisher');
    const heard = [];
    const byPattern = [];
    subscriber.on('message', (channel, message) => { heard.push(Number(message)); run.changed(); });
    subscriber.on('pmessage', (pattern, channel, message) => byPattern.push(Number(message)));
    await subscriber.subscribe('news', 'other');
    await subscriber.psubscribe('n?ws');
    let number = 0;
    while (run.going) {
      run.expect('pubsub', await publisher.publish('news', number), 2);
      number += 1;
      // Subscriptions come and go beside the others, and PING is answered.
      await subscriber.subscribe(`more:${number % 3}`);
      await subscriber.unsubscribe(`more:${number % 3}`);
      run.expect('ping', await subscriber.ping(), engine === 'redis' ? ['pong', ''] : 'PONG');
      run.did('pubsub');
    }
    await run.until(() => heard.length >= number && byPattern.length >= number);
    run.expect('pubsub', heard, numbers(number));
    run.expect('pubsub pattern', byPattern, numbers(number));
  },

  async script(run) {
    const client = await connection('script');
    client.defineCommand('addTo', {
      numberOfKeys: 1,
      lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    });
    for (let number = 1; run.going; number++) {
      run.expect('script', await client.addTo('script', 1), number);
      run.did('script');
    }
  },

  async scan(run) {
    const client = await connection('scan');
    const names = numbers(KEYS).map((number) => `scan:${number}`);
    await client.mset(names.flatMap((name) => [name, '1']));
    while (run.going) {
      const missing = new Set(names);
      for await (const keys of client.scanStream({ match: 'scan:*', count: 100 })) {
        for (const key of keys) missing.delete(key);
      }
      run.expect('scan', [...missing], []);
      run.did('scan');
    }
  },
};

const onRedis = {
  // A worker that waits for ever until there is something.
  async blocking(run) {
    const worker = await connection('worker');
    const client = await connection('blocking');
    const taken = [];
    const work = async () => {
      for (;;) {
        const [, element] = await worker.blpop('queue', 'queue2', 0);
        if (element === 'end') return;
        taken.push(Number(element));
        run.did('blocking');
      }
    };
    const working = work();
    let number = 0;
    while (run.going) {
      await client.rpush(number % 2 ? 'queue' : 'queue2', number);
      number += 1;
      await run.until(() => taken.length >= number || run.errors.length > 0);
    }
    await client.rpush('queue', 'end');
    await working;
    run.expect('blocking', taken, numbers(number));
  },

  async stream(run) {
    const reader = await connection('reader');
    const client = await connection('stream');
    const read = [];
    const work = async () => {
      let last = '$';
      for (;;) {
        const found = await reader.xread('BLOCK', 0, 'STREAMS', 'stream', last);
        for (const [id, [, value]] of found[0][1]) {
          last = id;
          if (value === 'end') return;
          read.push(Number(value));
          run.did('stream');
        }
      }
    };
    // What is added before the reader waits is not for it.
    const working = work();
    await run.until(() => false, 200);
    let number = 0;
    while (run.going) {
      await client.xadd('stream', '*', 'n', number);
      number += 1;
      await run.until(() => read.length >= number || run.errors.length > 0);
    }
    await client.xadd('stream', '*', 'n', 'end');
    await working;
    run.expect('stream', read, numbers(number));
  },

  async shardPubsub(run) {
    const subscriber = await connection('shard subscriber');
    const publisher = await connection('shard publisher');
    const heard = [];
    subscriber.on('smessage', (channel, message) => heard.push(Number(message)));
    await subscriber.ssubscribe('shard news');
    let number = 0;
    while (run.going) {
      run.expect('shardPubsub', await publisher.spublish('shard news', number), 1);
      number += 1;
      run.did('shardPubsub');
    }
    await run.until(() => heard.length >= number);
    run.expect('shardPubsub', heard, numbers(number));
  },
};

async function main() {
  await run.live();
  leave.forEach((each) => each());
  run.summary();
}

const run = new Run(engine === 'redis' ? { ...activities, ...onRedis } : activities);
main();
