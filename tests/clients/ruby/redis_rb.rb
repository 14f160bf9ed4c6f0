# redis-rb with threads, each with a connection of its own. Its one attempt to connect again is
# switched off. See tests/clients/driver.rs for what it says and hears.

require "json"
require "redis"

HOST, PORT, ENGINE = ARGV
STEPS = 5
KEYS = 2000
TEXTS_MAX = 20
PATIENCE_S = 60

def client
  Redis.new(host: HOST, port: PORT.to_i, reconnect_attempts: 0)
end

# Keeps count of what each activity does.
class Run
  attr_reader :counts, :errors, :wrongs

  def initialize(names)
    @counts = names.to_h { |name| [name, 0] }
    @errors = []
    @wrongs = []
    @lock = Mutex.new
    @changed = ConditionVariable.new
    @going = true
  end

  def going? = @going && @errors.empty?

  def stop = @going = false

  def did(name)
    @lock.synchronize do
      @counts[name] += 1
      @changed.broadcast
    end
  end

  def error(name, error)
    warn error.full_message
    @lock.synchronize do
      @errors << "#{name}: #{error.message}" if @errors.size < TEXTS_MAX
      @changed.broadcast
    end
  end

  def expect(name, found, expected)
    return if found == expected

    text = "#{name}: #{found.inspect[0, 200]} instead of #{expected.inspect[0, 200]}"
    @lock.synchronize { @wrongs << text if @wrongs.size < TEXTS_MAX }
  end

  # Waits until every activity has gone on for some steps. What stands still is named.
  def each_goes_on
    deadline = now + PATIENCE_S
    @lock.synchronize do
      before = @counts.dup
      loop do
        still = @counts.select { |name, count| count < before[name] + STEPS }.keys
        return if still.empty? || @errors.any?

        left = deadline - now
        return @errors << "nothing more from #{still}" if left <= 0

        @changed.wait(@lock, left)
      end
    end
  end

  # Waits for what other threads bring about, or for a while.
  def await
    deadline = now + PATIENCE_S
    sleep 0.001 until yield || @errors.any? || now > deadline
  end

  private

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

# Each activity is given its connection and yields after each step.

def set_get(run, redis)
  number = 0
  while run.going?
    redis.set("set:#{number % KEYS}", "value-#{number}")
    run.expect("get", redis.get("set:#{number % KEYS}"), "value-#{number}")
    number += 1
    yield
  end
  ([number - KEYS, 0].max...number).each do |each|
    run.expect("an acknowledged write", redis.get("set:#{each % KEYS}"), "value-#{each}")
  end
end

def counter(run, redis)
  expected = 0
  while run.going?
    expected += 1
    run.expect("counter", redis.incr("counter"), expected)
    yield
  end
end

def large_values(run, redis)
  number = 0
  while run.going?
    value = (97 + number % 26).chr * 100_000
    redis.set("large", value)
    run.expect("large", redis.get("large") == value, true)
    number += 1
    yield
  end
end

def pipeline(run, redis)
  expected = 0
  while run.going?
    results = redis.pipelined { |pipe| 20.times { pipe.incr("pipeline") } }
    run.expect("pipeline", results, (expected + 1..expected + 20).to_a)
    expected += 20
    yield
  end
end

def script(run, redis)
  digest = redis.script(:load, "return redis.call('INCR', KEYS[1])")
  number = 0
  while run.going?
    number += 1
    run.expect("script", redis.evalsha(digest, ["script"]), number)
    yield
  end
end

def scan(run, redis)
  (1..500).each { |number| redis.hset("hash", "field:#{number}", number) }
  while run.going?
    run.expect("scan", redis.hscan_each("hash").to_h.size, 500)
    yield
  end
end

def blocking_list(run, redis)
  taken = []
  worker = Thread.new do
    own = client
    loop do
      _, element = own.blpop("queue", timeout: 0)
      break if element == "end"

      taken << element.to_i
    end
  rescue StandardError => error
    run.error("worker", error)
  end
  number = 0
  while run.going?
    redis.rpush("queue", number)
    number += 1
    # The worker is to wait for the next element most of the time.
    run.await { taken.size >= number }
    yield
  end
  redis.rpush("queue", "end") if run.errors.empty?
  worker.join(PATIENCE_S)
  run.expect("blpop", taken, (0...number).to_a)
end

def messages(run, redis)
  heard = []
  listener = Thread.new do
    client.subscribe("news") do |on|
      on.message do |_, message|
        message == "end" ? raise(StopIteration) : heard << message.to_i
      end
    end
  rescue StopIteration
    nil
  rescue StandardError => error
    run.error("listener", error)
  end
  run.await { redis.pubsub(:numsub, "news")[1].to_i == 1 }
  number = 0
  while run.going?
    run.expect("publish", redis.publish("news", number), 1)
    number += 1
    yield
  end
  redis.publish("news", "end") if run.errors.empty?
  listener.join(PATIENCE_S)
  run.expect("messages", heard, (0...number).to_a)
end

def transaction(run, redis)
  expected = 0
  while run.going?
    expected += 1
    results = redis.multi { |multi| 2.times { |at| multi.incr("transaction:#{at}") } }
    run.expect("transaction", results, [expected, expected])
    yield
  end
end

def watch(run, redis)
  added = 0
  while run.going?
    result = redis.watch("watched") do
      value = redis.get("watched").to_i
      redis.multi { |multi| multi.set("watched", value + 1) }
    end
    # A change of master looks like a change of the key.
    added += 1 if result
    yield
  end
  run.expect("watch", redis.get("watched").to_i, added)
end

activities = %i[set_get counter large_values pipeline script scan blocking_list messages]
# EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12.
activities += %i[transaction watch] if ENGINE == "redis"

$stdout.sync = true
run = Run.new(activities)
threads = activities.map do |name|
  Thread.new do
    method(name).call(run, client) { run.did(name) }
  rescue StandardError => error
    run.error(name, error)
  end
end
run.each_goes_on
puts "ready"
while (line = $stdin.gets)
  break if line.strip == "stop"

  run.each_goes_on
  puts "marked"
end
exit 1 unless line
run.stop
threads.each { |thread| thread.join(PATIENCE_S) || run.wrongs << "a thread did not end" }
puts JSON.generate(done: run.counts, errors: run.errors, wrong: run.wrongs)
$stdin.read
