// Talks to the driver (tests/clients/driver.rs) and keeps count of what each activity does.
//
// An activity is an asynchronous loop that goes on while `run.going`; it calls `run.did(name)` for
// each thing that it has done and checked. What it throws is an error of the library; what it finds
// out by checking goes to `run.wrong`.
'use strict';

const assert = require('node:assert');
const readline = require('node:readline');

const PATIENCE_MS = 60_000;
const TEXTS_MAX = 20;
// What each activity has to do between two switchovers.
const STEPS = 5;

class Run {
  constructor(activities) {
    this.activities = activities;
    this.counts = Object.fromEntries(Object.keys(activities).map((name) => [name, 0]));
    this.errors = [];
    this.wrongs = [];
    this.going = true;
    this.waiting = new Set();
  }

  did(name, count = 1) {
    this.counts[name] += count;
    this.changed();
  }

  changed() {
    for (const look of this.waiting) look();
  }

  error(name, error) {
    console.error(name, error);
    if (this.errors.length < TEXTS_MAX) this.errors.push(`${name}: ${error}`);
    this.changed();
  }

  wrong(text) {
    if (this.wrongs.length < TEXTS_MAX) this.wrongs.push(text);
  }

  expect(name, found, expected) {
    try {
      assert.deepStrictEqual(found, expected);
    } catch (error) {
      const at = Array.isArray(found) ? found.findIndex((each, i) => each !== expected[i]) : '';
      const text = (value) => (JSON.stringify(value) ?? 'nothing').slice(0, 200);
      this.wrong(`${name}: ${at} ${text(found)} instead of ${text(expected)}`);
    }
  }

  // Resolves once `condition` holds, which other activities bring about, or after a while.
  until(condition, patience = PATIENCE_MS) {
    return new Promise((resolve) => {
      const look = () => {
        if (!condition() && !done) return;
        clearTimeout(timer);
        clearInterval(ticker);
        this.waiting.delete(look);
        resolve(condition());
      };
      let done = false;
      const timer = setTimeout(() => { done = true; look(); }, patience);
      const ticker = setInterval(look, 20);
      this.waiting.add(look);
      look();
    });
  }

  async eachGoesOn() {
    const before = { ...this.counts };
    const still = () =>
      Object.keys(this.counts).filter((name) => this.counts[name] < before[name] + STEPS);
    // An activity that has failed is over; the summary says why.
    await this.until(() => still().length === 0 || this.errors.length > 0);
    if (this.errors.length === 0 && still().length > 0) this.errors.push(`nothing more from ${still()}`);
  }

  // Everything that a connection says besides its answers: none of it is to happen.
  watchOver(name, client) {
    for (const event of ['error', 'close', 'reconnecting', 'end']) {
      client.on(event, (error) => {
        if (this.going) this.error(`${name}: ${event}`, error);
      });
    }
    return client;
  }

  // Runs the activities until the driver says stop.
  async live() {
    const over = Object.entries(this.activities).map(([name, activity]) =>
      activity(this).catch((error) => this.error(name, error)));
    await this.eachGoesOn();
    console.log('ready');
    for await (const line of readline.createInterface({ input: process.stdin })) {
      if (line === 'stop') {
        this.going = false;
        const ended = Promise.all(over).then(() => true);
        const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, false).unref());
        if (!(await Promise.race([ended, late]))) this.wrong('an activity did not end');
        return;
      }
      await this.eachGoesOn();
      console.log('marked');
    }
    // Without a driver nobody reads a summary.
    process.exit(1);
  }

  summary() {
    console.log(JSON.stringify({ done: this.counts, errors: this.errors, wrong: this.wrongs }));
    process.exit(0);
  }
}

const numbers = (count) => [...Array(count).keys()];

module.exports = { Run, numbers };
