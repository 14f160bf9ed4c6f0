//! Clients that notice everything: each knows what the answer to its next request must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use pointsman::cli::demo::wire::{Value, Wire, WireError, put_request};
use tokio::task::JoinHandle;

use crate::support::*;

/// What a client counts, on its own key.
#[derive(Debug, Default)]
struct Count {
    /// Answered: whoever reads from now on finds at least this.
    acked: AtomicU64,
    /// Sent: nobody may find more than this.
    sent: AtomicU64,
}

/// One kind of client, at work.
struct Worker {
    name: String,
    key: Option<String>,
    count: Arc<Count>,
    task: JoinHandle<Result<(), String>>,
}

/// Which clients there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Single requests and pipelines of them, messages.
    Plain,
    /// Transactions, scripts and waiting commands as well.
    All,
}

/// Through which proxies clients meet what others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Through the same: what was acknowledged through another may be up to 100 ms newer.
    Own,
    Every,
}

/// Clients of many kinds at work.
pub struct Crowd {
    workers: Vec<Worker>,
    stop: Arc<AtomicBool>,
}

type Outcome = Result<(), String>;

struct Job {
    addr: String,
    key: String,
    count: Arc<Count>,
    stop: Arc<AtomicBool>,
}

impl Job {
    async fn wire(&self) -> Result<Wire, String> {
        Ok(Wire::connect(&self.addr)
            .await
            .map_err(text)?
            .with_deadline(SOON))
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    /// The next number, which is being sent.
    fn next(&self) -> u64 {
        self.count.sent.fetch_add(1, SeqCst) + 1
    }

    fn acked(&self, number: u64) {
        self.count.acked.fetch_max(number, SeqCst);
    }
}

fn text(error: WireError) -> String {
    error.to_string()
}

fn expect(got: &Value, number: u64) -> Outcome {
    match got {
        Value::Int(got) if *got == number as i64 => Ok(()),
        got => Err(format!("{got:?} instead of {number}")),
    }
}

/// Counts one at a time.
async fn counts(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let number = job.next();
        expect(&wire.call(&["INCR", &job.key]).await.map_err(text)?, number)?;
        job.acked(number);
    }
    Ok(())
}

/// Writes and reads eight at once, and reads what it wrote.
async fn pipelines(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let first = job.next();
        let mut batch = Vec::new();
        for number in first..first + 4 {
            put_request(&mut batch, &["SET", &job.key, &number.to_string()]);
            put_request(&mut batch, &["GET", &job.key]);
        }
        job.count.sent.store(first + 3, SeqCst);
        wire.send_raw(&batch).await.map_err(text)?;
        for number in first..first + 4 {
            let (set, got) = (
                wire.reply().await.map_err(text)?,
                wire.reply().await.map_err(text)?,
            );
            if !set.ok() || got.text() != number.to_string() {
                return Err(format!("{set:?} and {got:?} instead of {number}"));
            }
            job.acked(number);
        }
    }
    Ok(())
}

/// Counts in transactions, sent whole.
async fn transacts_at_once(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let number = job.next();
        let mut batch = Vec::new();
        put_request(&mut batch, &["MULTI"]);
        put_request(&mut batch, &["INCR", &job.key]);
        put_request(&mut batch, &["GET", &job.key]);
        put_request(&mut batch, &["EXEC"]);
        wire.send_raw(&batch).await.map_err(text)?;
        for said in ["OK", "QUEUED", "QUEUED"] {
            let got = wire.reply().await.map_err(text)?;
            if got.text() != said {
                return Err(format!("{got:?} instead of {said}"));
            }
        }
        let done = wire.reply().await.map_err(text)?;
        let [incr, _] = done.items() else {
            return Err(format!("{done:?} to EXEC"));
        };
        expect(incr, number)?;
        job.acked(number);
    }
    Ok(())
}

/// Counts in transactions, sent word by word.
async fn transacts_slowly(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let number = job.next();
        for (line, said) in [
            ("MULTI".to_owned(), "OK"),
            (format!("INCR {}", job.key), "QUEUED"),
        ] {
            let got = wire.run(&line).await.map_err(text)?;
            if got.text() != said {
                return Err(format!("{got:?} to {line}"));
            }
        }
        let done = wire.run("EXEC").await.map_err(text)?;
        let [incr] = done.items() else {
            return Err(format!("{done:?} to EXEC"));
        };
        expect(incr, number)?;
        job.acked(number);
    }
    Ok(())
}

/// Counts in scripts.
async fn scripts(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    let script = "return redis.call('INCR', KEYS[1])";
    while job.goes_on() {
        let number = job.next();
        let got = wire
            .call(&["EVAL", script, "1", &job.key])
            .await
            .map_err(text)?;
        expect(&got, number)?;
        job.acked(number);
    }
    Ok(())
}

/// Puts numbers into a list, from which [`waits`] takes them.
async fn pushes(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    let list = format!("{}:list", job.key);
    while job.goes_on() {
        let number = job.next();
        let got = wire
            .call(&["RPUSH", &list, &number.to_string()])
            .await
            .map_err(text)?;
        if !matches!(got, Value::Int(_)) {
            return Err(format!("{got:?} to RPUSH"));
        }
        job.acked(number);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let got = wire.call(&["RPUSH", &list, "end"]).await.map_err(text)?;
    matches!(got, Value::Int(_))
        .then_some(())
        .ok_or(format!("{got:?}"))
}

/// Waits for the numbers of [`pushes`]: all of them, in order, each once.
async fn waits(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    let list = format!("{}:list", job.key);
    let mut next = 1;
    loop {
        let got = wire.call(&["BLPOP", &list, "0"]).await.map_err(text)?;
        match got.items() {
            [_, end] if end.text() == "end" => return Ok(()),
            [_, number] if number.text() == next.to_string() => next += 1,
            _ => return Err(format!("{got:?} instead of {next}")),
        }
        job.acked(next);
    }
}

/// Sends messages to [`listens`].
async fn publishes(job: Job) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let number = job.next();
        let got = wire
            .call(&["PUBLISH", &job.key, &number.to_string()])
            .await
            .map_err(text)?;
        if !matches!(got, Value::Int(_)) {
            return Err(format!("{got:?} to PUBLISH"));
        }
        job.acked(number);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let got = wire
        .call(&["PUBLISH", &job.key, "end"])
        .await
        .map_err(text)?;
    matches!(got, Value::Int(_))
        .then_some(())
        .ok_or(format!("{got:?}"))
}

/// Receives every message once, in order.
async fn listens(job: Job, mut wire: Wire) -> Outcome {
    let mut next = 1;
    loop {
        let got = wire.reply().await.map_err(text)?;
        match got.items() {
            [_, _, end] if end.text() == "end" => return Ok(()),
            [_, _, number] if number.text() == next.to_string() => next += 1,
            _ => return Err(format!("{got:?} instead of message {next}")),
        }
        job.acked(next);
    }
}

/// Reads what others count, and never finds less than they had been told before it asked.
async fn reads(job: Job, of: Arc<Count>, key: String) -> Outcome {
    let mut wire = job.wire().await?;
    while job.goes_on() {
        let least = of.acked.load(SeqCst);
        let got = wire.call(&["GET", &key]).await.map_err(text)?;
        let found: u64 = got.text().parse().unwrap_or(0);
        if found < least || matches!(got, Value::Error(_)) {
            return Err(format!("read {got:?} after {least} was acknowledged"));
        }
        job.acked(job.next());
    }
    Ok(())
}

impl Crowd {
    /// Clients of `proxies`, each kind on each of them; all have begun when this returns.
    pub async fn start(proxies: &[&Proxy], kinds: Kinds) -> Crowd {
        Crowd::gather(proxies, kinds, Reach::Own).await
    }

    /// The same, and everybody reads and hears through every proxy what is written and published
    /// through any.
    pub async fn start_across(proxies: &[&Proxy], kinds: Kinds) -> Crowd {
        Crowd::gather(proxies, kinds, Reach::Every).await
    }

    async fn gather(proxies: &[&Proxy], kinds: Kinds, reach: Reach) -> Crowd {
        let mut crowd = Crowd {
            workers: Vec::new(),
            stop: Arc::default(),
        };
        for (at, proxy) in proxies.iter().enumerate() {
            for each in 0..3 {
                crowd.add(format!("counts{at}{each}"), proxy, counts);
            }
            crowd.add(format!("pipelines{at}"), proxy, pipelines);
            if kinds != Kinds::Plain {
                crowd.add(format!("at_once{at}"), proxy, transacts_at_once);
                crowd.add(format!("slowly{at}"), proxy, transacts_slowly);
                crowd.add(format!("scripts{at}"), proxy, scripts);
                crowd.add_pair(format!("list{at}"), proxy, pushes, waits);
            }
            for (other, hearing) in proxies.iter().enumerate() {
                if other == at || reach == Reach::Every {
                    let name = format!("messages{at}{other}");
                    crowd.add_messages(name, proxy, hearing).await;
                }
            }
        }
        let counted: Vec<_> = crowd
            .workers
            .iter()
            .filter(|worker| worker.name.starts_with("counts"))
            .map(|worker| (worker.name.clone(), worker.count.clone()))
            .collect();
        for (at, proxy) in proxies.iter().enumerate() {
            let own = format!("counts{at}");
            let read = |name: &str| reach == Reach::Every || name.starts_with(&own);
            for (name, count) in counted.iter().filter(|(name, _)| read(name)) {
                let job = crowd.job(name, &proxy.addr);
                let (own, of, key) = (job.count.clone(), count.clone(), name.clone());
                let task = tokio::spawn(reads(job, of, key));
                crowd.enlist(format!("reads{at} {name}"), None, own, task);
            }
        }
        crowd.go_on().await;
        crowd
    }

    fn job(&self, key: &str, addr: &str) -> Job {
        Job {
            addr: addr.to_owned(),
            key: key.to_owned(),
            count: Arc::default(),
            stop: self.stop.clone(),
        }
    }

    fn enlist(
        &mut self,
        name: String,
        key: Option<String>,
        count: Arc<Count>,
        task: JoinHandle<Outcome>,
    ) {
        self.workers.push(Worker {
            name,
            key,
            count,
            task,
        });
    }

    fn add<F: Future<Output = Outcome> + Send + 'static>(
        &mut self,
        name: String,
        proxy: &Proxy,
        work: impl Fn(Job) -> F,
    ) {
        let job = self.job(&name, &proxy.addr);
        let count = job.count.clone();
        let task = tokio::spawn(work(job));
        self.enlist(name.clone(), Some(name), count, task);
    }

    fn add_pair<F, G>(
        &mut self,
        name: String,
        proxy: &Proxy,
        gives: impl Fn(Job) -> F,
        takes: impl Fn(Job) -> G,
    ) where
        F: Future<Output = Outcome> + Send + 'static,
        G: Future<Output = Outcome> + Send + 'static,
    {
        let (giver, taker) = (self.job(&name, &proxy.addr), self.job(&name, &proxy.addr));
        let counts = (giver.count.clone(), taker.count.clone());
        let tasks = (tokio::spawn(gives(giver)), tokio::spawn(takes(taker)));
        self.enlist(format!("{name} gives"), None, counts.0, tasks.0);
        self.enlist(format!("{name} takes"), None, counts.1, tasks.1);
    }

    async fn add_messages(&mut self, name: String, proxy: &Proxy, hearing: &Proxy) {
        let mut wire = client(hearing).await.with_deadline(SOON);
        let subscribed = wire.call(&["SUBSCRIBE", &name]).await.unwrap();
        assert_eq!(subscribed.items().len(), 3, "{subscribed:?}");
        let wire = std::sync::Mutex::new(Some(wire));
        let takes = |job| listens(job, wire.lock().unwrap().take().unwrap());
        self.add_pair(name, proxy, publishes, takes);
    }

    /// Returns when every client has been answered further requests. Fails as soon as one of them
    /// has noticed something.
    pub async fn go_on(&self) {
        let before: Vec<u64> = self
            .workers
            .iter()
            .map(|one| one.count.acked.load(SeqCst))
            .collect();
        wait_until("every client is answered", async || {
            self.workers.iter().zip(&before).all(|(one, before)| {
                one.task.is_finished() || one.count.acked.load(SeqCst) > before + 10
            })
        })
        .await;
    }

    /// Ends the clients; `master` must have what they were told, and no more than they sent.
    pub async fn finish(self, master: &str) {
        self.stop.store(true, SeqCst);
        let mut noticed = Vec::new();
        let mut wire = Wire::connect(master).await.unwrap();
        for worker in self.workers {
            let ended = tokio::time::timeout(2 * SOON, worker.task).await;
            match ended.map_err(|_| "has not ended".to_owned()) {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) | Err(error) => {
                    noticed.push(format!("{}: {error}", worker.name));
                }
                Ok(Err(error)) => noticed.push(format!("{}: {error}", worker.name)),
            }
            let Some(key) = worker.key else { continue };
            let acked = worker.count.acked.load(SeqCst);
            let found = wire.call(&["GET", &key]).await.unwrap().text();
            if found != acked.to_string() {
                noticed.push(format!(
                    "{key} is {found} on the master, {acked} was acknowledged"
                ));
            }
        }
        assert!(noticed.is_empty(), "{noticed:#?}");
    }
}
