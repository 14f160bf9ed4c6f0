// BullMQ: jobs, delayed jobs, jobs that fail and are tried again, and flows of jobs, on Lua
// scripts, blocking commands and streams. Each job is done exactly as often as it should be.
'use strict';

const { Queue, Worker, QueueEvents, FlowProducer } = require('bullmq');
const { Run } = require('./harness');

const [host, port] = process.argv.slice(2);

// A worker insists on waiting for its answers without end; nothing is reconnected.
const connection = { host, port: Number(port), retryStrategy: null, maxRetriesPerRequest: null };
const done = new Map();
const completed = new Set();

async function job({ id, data, attemptsMade }) {
  done.set(id, (done.get(id) ?? 0) + 1);
  run.changed();
  if (data.fails && attemptsMade === 0) throw new Error('the first try is to fail');
  return data.number;
}

async function main() {
  const queue = new Queue('work', { connection });
  const flows = new FlowProducer({ connection });
  const events = new QueueEvents('work', { connection });
  const workers = [1, 2].map(() => new Worker('work', job, { connection, concurrency: 4 }));
  const all = [queue, flows, events, ...workers];
  for (const each of all) {
    each.on('error', (error) => run.error('connection', error));
    await each.waitUntilReady();
  }
  events.on('completed', ({ jobId }) => {
    if (completed.has(jobId)) run.wrong(`completed twice: ${jobId}`);
    completed.add(jobId);
    run.changed();
  });
  const expected = new Map();

  const waitFor = async (jobs) => {
    await run.until(() => jobs.every(({ id }) => completed.has(id)) || run.errors.length > 0);
    const lost = jobs.filter(({ id }) => !completed.has(id)).map(({ id }) => id);
    run.expect('completed', lost, []);
  };

  Object.assign(run.activities, {
    async jobs(run) {
      for (let number = 0; run.going; number++) {
        const jobs = await queue.addBulk([0, 1, 2].map((each) => (
          { name: 'job', data: { number: 3 * number + each } })));
        jobs.forEach(({ id }) => expected.set(id, 1));
        await waitFor(jobs);
        run.did('jobs');
      }
    },

    async delayed(run) {
      while (run.going) {
        const later = await queue.add('later', { number: 0 }, { delay: 20 });
        expected.set(later.id, 1);
        await waitFor([later]);
        run.did('delayed');
      }
    },

    async tried(run) {
      while (run.going) {
        const job = await queue.add('again', { number: 0, fails: true }, { attempts: 2 });
        expected.set(job.id, 2);
        await waitFor([job]);
        run.did('tried');
      }
    },

    // A parent is done after its children, with their results.
    async flow(run) {
      while (run.going) {
        const children = [1, 2].map((number) => (
          { name: 'child', queueName: 'work', data: { number } }));
        const tree = await flows.add({ name: 'parent', queueName: 'work', data: {}, children });
        const jobs = [tree.job, ...tree.children.map((child) => child.job)];
        jobs.forEach(({ id }) => expected.set(id, 1));
        await waitFor(jobs);
        const results = Object.values(await tree.job.getChildrenValues()).sort();
        run.expect('flow', results, [1, 2]);
        run.did('flow');
      }
    },
  });

  await run.live();
  const often = [...expected].filter(([id, times]) => done.get(id) !== times);
  run.expect('jobs done as often as they should be', often, []);
  run.expect('left', await queue.getJobCounts('wait', 'active', 'delayed', 'failed'),
    { wait: 0, active: 0, delayed: 0, failed: 0 });
  run.summary();
}

const run = new Run({ jobs: null, delayed: null, tried: null, flow: null });
main().catch((error) => {
  run.error('main', error);
  run.summary();
});
