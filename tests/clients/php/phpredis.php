<?php
/* phpredis: one process that does one step of each activity after the other, as a script behind a web
 * server would, and two children, of which one waits for elements of a list and the other for messages.
 * Its own repetition of commands is switched off. See tests/clients/driver.rs for what it says and
 * hears. */

declare(strict_types=1);

const STEPS = 5;
const KEYS = 2000;
const TEXTS_MAX = 20;
[, $host, $port, $engine] = $argv;

function client(): Redis
{
    global $host, $port;
    $redis = new Redis();
    $redis->connect($host, (int) $port);
    $redis->setOption(Redis::OPT_MAX_RETRIES, 0);
    return $redis;
}

/** What was seen of something that nobody expected. */
$wrong = [];

function expect(string $name, mixed $found, mixed $expected): void
{
    global $wrong;
    if ($found !== $expected && count($wrong) < TEXTS_MAX) {
        $text = fn ($value) => substr(var_export($value, true), 0, 200);
        $wrong[] = "$name: " . $text($found) . ' instead of ' . $text($expected);
    }
}

/** A child that does this and ends. What it throws is an error of the library, kept for the parent. */
function child(string $name, callable $work): int
{
    $pid = pcntl_fork();
    if ($pid !== 0) {
        return $pid;
    }
    fclose(STDOUT);
    try {
        $work(client());
    } catch (Throwable $error) {
        fwrite(STDERR, "$error\n");
        client()->rPush('errors', "$name: " . $error->getMessage());
    }
    // Nothing of the parent's may be closed in order.
    posix_kill(posix_getpid(), SIGKILL);
    exit;
}

/** Moves each element to another list. It may wait longer than the library's own patience. */
$worker = child('worker', function (Redis $redis) {
    $redis->setOption(Redis::OPT_READ_TIMEOUT, -1);
    do {
        [, $element] = $redis->blPop(['queue'], 0);
        $redis->rPush('done', $element);
    } while ($element !== 'end');
});
$listener = child('listener', function (Redis $redis) {
    $noted = client();
    $redis->setOption(Redis::OPT_READ_TIMEOUT, -1);
    $redis->subscribe(['news'], function (Redis $redis, string $channel, string $message) use ($noted) {
        $noted->rPush('heard', $message);
        if ($message === 'end') {
            $redis->unsubscribe(['news']);
        }
    });
});

$redis = client();
$script = $redis->script('load', "return redis.call('INCR', KEYS[1])");

$activities = [
    'set_get' => function (int $number) use ($redis) {
        expect('set', $redis->set('set:' . $number % KEYS, "value-$number"), true);
        expect('get', $redis->get('set:' . $number % KEYS), "value-$number");
    },
    'counter' => fn (int $number) => expect('counter', $redis->incr('counter'), $number + 1),
    'large_values' => function (int $number) use ($redis) {
        $value = str_repeat(chr(97 + $number % 26), 100_000);
        $redis->set('large', $value);
        expect('large', $redis->get('large') === $value, true);
    },
    'pipeline' => function (int $number) use ($redis) {
        $pipeline = $redis->pipeline();
        for ($at = 0; $at < 20; $at++) {
            $pipeline->incr('pipeline');
        }
        expect('pipeline', $pipeline->exec(), range(20 * $number + 1, 20 * $number + 20));
    },
    'script' => fn (int $number) =>
        expect('script', $redis->evalSha($script, ['script'], 1), $number + 1),
    'scan' => function (int $number) use ($redis) {
        if ($number === 0) {
            $redis->hMSet('hash', array_combine(range(1, 500), range(1, 500)));
        }
        $cursor = null;
        $found = [];
        while ($some = $redis->hScan('hash', $cursor)) {
            $found += $some;
        }
        expect('scan', count($found), 500);
    },
    'blocking_list' => fn (int $number) => $redis->rPush('queue', (string) $number),
    'messages' => fn (int $number) => expect('publish', $redis->publish('news', (string) $number), 1),
];
// EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12.
if ($engine === 'redis') {
    $activities['transaction'] = function (int $number) use ($redis) {
        $results = $redis->multi()->incr('transaction:a')->incr('transaction:b')->exec();
        expect('transaction', $results, [$number + 1, $number + 1]);
    };
    $activities['watch'] = function (int $number) use ($redis) {
        // A change of master looks like a change of the key: the next attempt is another step's.
        $redis->watch('watched');
        $before = (int) $redis->get('watched');
        $redis->multi()->set('watched', $before + 1)->exec();
    };
}

$done = array_fill_keys(array_keys($activities), 0);
$errors = [];

function rounds(int $rounds): void
{
    global $activities, $done, $errors;
    for (; $rounds > 0 && $errors === []; $rounds--) {
        foreach ($activities as $name => $step) {
            try {
                $step($done[$name]);
                $done[$name]++;
            } catch (RedisException $error) {
                fwrite(STDERR, "$error\n");
                $errors[] = "$name: " . $error->getMessage();
                return;
            }
        }
    }
}

/** Waits for what a child brings about, or for a while. */
function await(callable $condition): void
{
    for ($deadline = microtime(true) + 20; !$condition() && microtime(true) < $deadline;) {
        usleep(1000);
    }
}

await(fn () => $redis->pubsub('numsub', ['news'])['news'] === 1);
rounds(STEPS);
echo "ready\n";
stream_set_blocking(STDIN, false);
while (true) {
    rounds(1);
    $line = fgets(STDIN);
    if ($line === false) {
        if (feof(STDIN)) {
            exit(1);
        }
        if ($errors !== []) {
            usleep(10_000);
        }
        continue;
    }
    if (trim($line) === 'stop') {
        break;
    }
    rounds(STEPS);
    echo "marked\n";
}
if ($errors === []) {
    $redis->rPush('queue', 'end');
    $redis->publish('news', 'end');
    foreach (['done' => 'blocking_list', 'heard' => 'messages'] as $list => $activity) {
        await(fn () => $redis->lIndex($list, -1) === 'end');
        $expected = [...array_map('strval', range(0, $done[$activity] - 1)), 'end'];
        expect($list, $redis->lRange($list, 0, -1), $expected);
    }
    for ($number = max(0, $done['set_get'] - KEYS); $number < $done['set_get']; $number++) {
        expect('an acknowledged write', $redis->get('set:' . $number % KEYS), "value-$number");
    }
    $errors = $redis->lRange('errors', 0, -1);
}
echo json_encode(['done' => $done, 'errors' => $errors, 'wrong' => $wrong]), "\n";
posix_kill($worker, SIGKILL);
posix_kill($listener, SIGKILL);
stream_set_blocking(STDIN, true);
stream_get_contents(STDIN);
