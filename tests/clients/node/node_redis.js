// node-redis with reconnecting and its offline queue switched off, in RESP2 or RESP3.
'use strict';

const redis = require('redis');
const { Run, numbers } = require('./harness');

const [version, host, port, engine] = process.argv.slice(2);
const RESP = Number(version);
const KEYS = 1000;

const options = {
  RESP,
  socket: { host, port: Number(port), reconnectStrategy: false },
  disableOfflineQueue: true,
  scripts: {
    addTo: redis.defineScript({
      NUMBER_OF_KEYS: 1,
      SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
      parseCommand(parser, key, number) {
        parser.pushKey(key);
        parser.push(String(number));
      },
      transformReply: undefined,
    }),
  },
};

async function connection(name, more = {}) {
  const client = redis.createClient({ ...options, ...more });
  run.watchOver(name, client);
  await client.connect();
  return client;
}

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
    run.expect('acknowledged writes', await client.mGet(keys), [...acked.values()]);
  },

  async counter(run) {
    const client = await connection('counter');
    for (let number = 0; run.going; number += 20) {
      const found = await Promise.all(numbers(20).map(() => client.incr('counter')));
      run.expect('counter', found, numbers(20).map((each) => number + each + 1));
      run.did('counter');
    }
  },

  async multi(run) {
    const client = await connection('multi');
    for (let number = 1; run.going; number += 2) {
      const found = await client.multi().incr('multi').get('multi').exec();
      run.expect('multi', found, [number, String(number)]);
      const piped = await client.multi().incr('multi').ping().execAsPipeline();
      run.expect('pipeline', piped, [number + 1, 'PONG']);
      run.did('multi');
    }
  },

  // Two at a time on connections that a pool lends out.
  async watch(run) {
    const pool = redis.createClientPool(options, { minimum: 2, maximum: 2 });
    run.watchOver('watch', pool);
    await pool.connect();
    let added = 0;
    const add = async () => {
      while (run.going) {
        const answer = await pool.execute(async (client) => {
          await client.watch('watch');
          const number = Number(await client.get('watch'));
          return client.multi().set('watch', number + 1).exec().catch((error) => {
            if (error instanceof redis.WatchError) return null;
            throw error;
          });
        });
        if (answer === null) continue;
        added += 1;
        run.did('watch');
      }
    };
    await Promise.all([add(), add()]);
    run.expect('watch', Number(await pool.get('watch')), added);
  },

  async pubsub(run) {
    const subscriber = await connection('subscriber');
    const publisher = await connection('publisher');
    const heard = [];
    const byPattern = [];
    await subscriber.subscribe('news', (message) => heard.push(Number(message)));
    await subscriber.pSubscribe('n?ws', (message) => byPattern.push(Number(message)));
    let number = 0;
    while (run.going) {
      run.expect('pubsub', await publisher.publish('news', String(number)), 2);
      number += 1;
      await subscriber.subscribe('more', () => {});
      await subscriber.unsubscribe('more');
      if (RESP === 3) run.expect('echo', await subscriber.echo('beside'), 'beside');
      run.did('pubsub');
    }
    await run.until(() => heard.length >= number && byPattern.length >= number);
    run.expect('pubsub', heard, numbers(number));
    run.expect('pubsub pattern', byPattern, numbers(number));
  },

  async script(run) {
    const client = await connection('script');
    for (let number = 1; run.going; number++) {
      run.expect('script', await client.addTo('script', 1), number);
      run.did('script');
    }
  },

  async scan(run) {
    const client = await connection('scan');
    const names = numbers(KEYS).map((number) => `scan:${number}`);
    await client.mSet(Object.fromEntries(names.map((name) => [name, '1'])));
    while (run.going) {
      const missing = new Set(names);
      for await (const keys of client.scanIterator({ MATCH: 'scan:*', COUNT: 100 })) {
        for (const key of keys) missing.delete(key);
      }
      run.expect('scan', [...missing], []);
      run.did('scan');
    }
  },
};

const onRedis = {
  async blocking(run) {
    const worker = await connection('worker');
    const client = await connection('blocking');
    const taken = [];
    const work = async () => {
      for (;;) {
        const { element } = await worker.blPop('queue', 0);
        if (element === 'end') return;
        taken.push(Number(element));
        run.did('blocking');
      }
    };
    const working = work();
    let number = 0;
    while (run.going) {
      await client.rPush('queue', String(number));
      number += 1;
      await run.until(() => taken.length >= number || run.errors.length > 0);
    }
    await client.rPush('queue', 'end');
    await working;
    run.expect('blocking', taken, numbers(number));
  },
};

async function main() {
  await run.live();
  run.summary();
}

const chosen = engine === 'redis' ? { ...activities, ...onRedis } : activities;
// The library does not understand how Kvrocks sends messages in RESP3.
if (engine === 'kvrocks' && RESP === 3) delete chosen.pubsub;
const run = new Run(chosen);
main();
