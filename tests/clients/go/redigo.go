// Redigo, with a pool of connections and a goroutine for each activity. It repeats nothing by itself.
// See tests/clients/driver.rs for what it says and hears.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	steps    = 5
	keys     = 2000
	textsMax = 20
	patience = 60 * time.Second
)

var pool *redis.Pool

// run keeps count of what each activity does.
type run struct {
	sync.Mutex
	Done     map[string]int `json:"done"`
	Errors   []string       `json:"errors"`
	Wrong    []string       `json:"wrong"`
	stopping bool
}

func (r *run) going() bool {
	r.Lock()
	defer r.Unlock()
	return !r.stopping && len(r.Errors) == 0
}

func (r *run) did(name string) {
	r.Lock()
	defer r.Unlock()
	r.Done[name]++
}

func (r *run) failed(name string, err error) {
	fmt.Fprintln(os.Stderr, name, err)
	r.Lock()
	defer r.Unlock()
	if len(r.Errors) < textsMax {
		r.Errors = append(r.Errors, fmt.Sprintf("%s: %v", name, err))
	}
}

func (r *run) expect(name string, found, expected interface{}) {
	if reflect.DeepEqual(found, expected) {
		return
	}
	r.Lock()
	defer r.Unlock()
	if len(r.Wrong) < textsMax {
		r.Wrong = append(r.Wrong, fmt.Sprintf("%s: %.200v instead of %.200v", name, found, expected))
	}
}

// await waits for a condition that other goroutines bring about, or for a while.
func (r *run) await(condition func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if condition() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// eachGoesOn waits until every activity has gone on for some steps.
func (r *run) eachGoesOn() {
	before := map[string]int{}
	r.Lock()
	for name, count := range r.Done {
		before[name] = count
	}
	r.Unlock()
	var still []string
	done := r.await(func() bool {
		r.Lock()
		defer r.Unlock()
		still = nil
		for name, count := range r.Done {
			if count < before[name]+steps {
				still = append(still, name)
			}
		}
		return len(still) == 0 || len(r.Errors) > 0
	})
	if !done {
		r.failed("driver", fmt.Errorf("nothing more from %v", still))
	}
}

// asked asks on a connection from the pool.
func asked(command string, arguments ...interface{}) (interface{}, error) {
	link := pool.Get()
	defer link.Close()
	return link.Do(command, arguments...)
}

// Each activity calls `step` after each thing that it has done and checked.
type activity func(r *run, step func()) error

func setGet(r *run, step func()) error {
	number := 0
	for ; r.going(); number++ {
		key, value := fmt.Sprint("set:", number%keys), fmt.Sprint("value-", number)
		if _, err := asked("SET", key, value); err != nil {
			return err
		}
		found, err := redis.String(asked("GET", key))
		if err != nil {
			return err
		}
		r.expect("get", found, value)
		step()
	}
	first := number - keys
	if first < 0 {
		first = 0
	}
	for ; first < number; first++ {
		found, err := redis.String(asked("GET", fmt.Sprint("set:", first%keys)))
		if err != nil {
			return err
		}
		r.expect("an acknowledged write", found, fmt.Sprint("value-", first))
	}
	return nil
}

func counter(r *run, step func()) error {
	for number := 1; r.going(); number++ {
		found, err := redis.Int(asked("INCR", "counter"))
		if err != nil {
			return err
		}
		r.expect("counter", found, number)
		step()
	}
	return nil
}

func largeValues(r *run, step func()) error {
	for number := 0; r.going(); number++ {
		value := strings.Repeat(string(rune('a'+number%26)), 100000)
		if _, err := asked("SET", "large", value); err != nil {
			return err
		}
		found, err := redis.String(asked("GET", "large"))
		if err != nil {
			return err
		}
		r.expect("large", found == value, true)
		step()
	}
	return nil
}

func pipeline(r *run, step func()) error {
	link := pool.Get()
	defer link.Close()
	for number := 0; r.going(); {
		for at := 0; at < 20; at++ {
			if err := link.Send("INCR", "pipeline"); err != nil {
				return err
			}
		}
		if err := link.Flush(); err != nil {
			return err
		}
		for at := 0; at < 20; at++ {
			number++
			found, err := redis.Int(link.Receive())
			if err != nil {
				return err
			}
			r.expect("pipeline", found, number)
		}
		step()
	}
	return nil
}

func script(r *run, step func()) error {
	text := redis.NewScript(1, "return redis.call('INCR', KEYS[1])")
	link := pool.Get()
	defer link.Close()
	if err := text.Load(link); err != nil {
		return err
	}
	for number := 1; r.going(); number++ {
		// By its digest; the library's other way would send the text again.
		found, err := redis.Int(link.Do("EVALSHA", text.Hash(), 1, "script"))
		if err != nil {
			return err
		}
		r.expect("script", found, number)
		step()
	}
	return nil
}

func blockingList(r *run, step func()) error {
	taken := make(chan int, 1)
	go func() {
		defer close(taken)
		link := pool.Get()
		defer link.Close()
		for number := 0; ; number++ {
			found, err := redis.Strings(redis.DoWithTimeout(link, 0, "BLPOP", "queue", 0))
			if err != nil {
				r.failed("worker", err)
				return
			}
			if found[1] == "end" {
				return
			}
			r.expect("blpop", found[1], fmt.Sprint(number))
			taken <- number
		}
	}()
	for number := 0; r.going(); number++ {
		if _, err := asked("RPUSH", "queue", number); err != nil {
			return err
		}
		// The worker is to wait for the next element most of the time.
		select {
		case <-taken:
		case <-time.After(patience):
			return errors.New("an element was not taken")
		}
		step()
	}
	_, err := asked("RPUSH", "queue", "end")
	<-taken
	return err
}

func messages(r *run, step func()) error {
	listener := redis.PubSubConn{Conn: pool.Get()}
	defer listener.Close()
	if err := listener.Subscribe("news"); err != nil {
		return err
	}
	if _, isSubscribed := listener.ReceiveWithTimeout(patience).(redis.Subscription); !isSubscribed {
		return errors.New("no confirmation of a subscription")
	}
	for number := 0; r.going(); number++ {
		heard, err := redis.Int(asked("PUBLISH", "news", number))
		if err != nil {
			return err
		}
		r.expect("publish", heard, 1)
		switch message := listener.ReceiveWithTimeout(patience).(type) {
		case redis.Message:
			r.expect("message", string(message.Data), fmt.Sprint(number))
		case error:
			return message
		}
		step()
	}
	return nil
}

func transaction(r *run, step func()) error {
	link := pool.Get()
	defer link.Close()
	for number := 1; r.going(); number++ {
		link.Send("MULTI")
		link.Send("INCR", "transaction:a")
		link.Send("INCR", "transaction:b")
		found, err := redis.Ints(link.Do("EXEC"))
		if err != nil {
			return err
		}
		r.expect("transaction", found, []int{number, number})
		step()
	}
	return nil
}

func main() {
	host, port, engine := os.Args[1], os.Args[2], os.Args[3]
	pool = &redis.Pool{
		MaxIdle: 64,
		Dial:    func() (redis.Conn, error) { return redis.Dial("tcp", host+":"+port) },
	}
	activities := map[string]activity{
		"set_get": setGet, "counter": counter, "large_values": largeValues, "pipeline": pipeline,
		"script": script, "messages": messages,
	}
	// EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12.
	if engine == "redis" {
		// A push in the very instant in which a BLPOP comes wakes nobody on Kvrocks, also without a
		// proxy, and this library is quick enough to meet it.
		activities["blocking_list"] = blockingList
		activities["transaction"] = transaction
	}
	// Every connection that the activities will need at once is opened before they begin.
	warm := make([]redis.Conn, 2*len(activities)+2)
	for at := range warm {
		warm[at] = pool.Get()
		warm[at].Do("PING")
	}
	for _, link := range warm {
		link.Close()
	}
	r := &run{Done: map[string]int{}, Errors: []string{}, Wrong: []string{}}
	for name := range activities {
		r.Done[name] = 0
	}
	var all sync.WaitGroup
	for name, work := range activities {
		name, work := name, work
		all.Add(1)
		go func() {
			defer all.Done()
			if err := work(r, func() { r.did(name) }); err != nil {
				r.failed(name, err)
			}
		}()
	}
	r.eachGoesOn()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "stop" {
			r.Lock()
			r.stopping = true
			r.Unlock()
			all.Wait()
			json.NewEncoder(os.Stdout).Encode(r)
			continue
		}
		r.eachGoesOn()
		fmt.Println("marked")
	}
}
