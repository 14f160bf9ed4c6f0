//! The redis crate: its blocking connection, the multiplexed one and the connection manager, whose
//! retries are switched off.

use futures::StreamExt;
use pointsman_clients::{Activities, Run, arguments};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, Commands, RedisResult, Script};

#[tokio::main]
async fn main() -> RedisResult<()> {
    let (host, port, engine) = arguments();
    let client = Client::open(format!("redis://{host}:{port}/"))?;
    let (run, mut all) = (Run::default(), Activities::default());
    all.begin(
        &run,
        "blocking client",
        on_a_thread(blocking_client, client.clone(), run.clone()),
    );
    all.begin(
        &run,
        "transaction",
        on_a_thread(transaction, client.clone(), run.clone()),
    );
    all.begin(
        &run,
        "multiplexed",
        multiplexed(client.clone(), run.clone()),
    );
    all.begin(&run, "manager", manager(client.clone(), run.clone()));
    all.begin(&run, "pubsub", pubsub(client.clone(), run.clone()));
    all.begin(&run, "script", script(client.clone(), run.clone()));
    if engine == "redis" {
        all.begin(
            &run,
            "blocking list",
            blocking_list(client.clone(), run.clone()),
        );
    }
    run.live(all).await;
    Ok(())
}

async fn on_a_thread(
    work: fn(Client, Run) -> RedisResult<()>,
    client: Client,
    run: Run,
) -> RedisResult<()> {
    tokio::task::spawn_blocking(move || work(client, run))
        .await
        .expect("no panic")
}

fn blocking_client(client: Client, run: Run) -> RedisResult<()> {
    let mut connection = client.get_connection()?;
    let mut number = 0;
    while run.going() {
        let () = connection.set(format!("sync:{}", number % 1000), number)?;
        number += 1;
        run.expect("incr", connection.incr("sync", 1)?, number);
        let piped: Vec<i64> = redis::pipe()
            .incr("sync:pipe", 1)
            .ignore()
            .incr("sync:pipe", 1)
            .query(&mut connection)?;
        run.expect("pipe", piped, vec![2 * number]);
        run.did("blocking client");
    }
    for each in (number - 1000).max(0)..number {
        run.expect(
            "kept",
            connection.get(format!("sync:{}", each % 1000))?,
            each,
        );
    }
    Ok(())
}

/// Two connections add to one number under WATCH.
fn transaction(client: Client, run: Run) -> RedisResult<()> {
    let add = |client: Client, run: Run| -> RedisResult<i64> {
        let mut connection = client.get_connection()?;
        let mut added = 0;
        while run.going() {
            let _: (i64,) = redis::transaction(&mut connection, &["watch"], |on, pipe| {
                let number: i64 = on.get::<_, Option<i64>>("watch")?.unwrap_or(0);
                pipe.set("watch", number + 1)
                    .ignore()
                    .get("watch")
                    .query(on)
            })?;
            added += 1;
            run.did("transaction");
        }
        Ok(added)
    };
    let other = {
        let (client, run) = (client.clone(), run.clone());
        std::thread::spawn(move || add(client, run))
    };
    let added = add(client.clone(), run.clone())? + other.join().expect("no panic")?;
    run.expect("watch", client.get_connection()?.get("watch")?, added);
    Ok(())
}

/// Clones of one connection ask at once; the answers come back to those who asked.
async fn multiplexed(client: Client, run: Run) -> RedisResult<()> {
    let connection = client.get_multiplexed_async_connection().await?;
    let one = async |place: usize| -> RedisResult<()> {
        let (mut connection, key) = (connection.clone(), format!("multiplexed:{place}"));
        let mut number = 0;
        while run.going() {
            number += 1;
            run.expect("incr", connection.incr(&key, 1).await?, number);
            let exec: (i64, i64) = redis::pipe()
                .atomic()
                .incr(&key, 1)
                .get(&key)
                .query_async(&mut connection)
                .await?;
            number += 1;
            run.expect("exec", exec, (number, number));
            run.did("multiplexed");
        }
        Ok(())
    };
    futures::future::try_join_all((0..8).map(one))
        .await
        .map(drop)
}

async fn manager(client: Client, run: Run) -> RedisResult<()> {
    let config = ConnectionManagerConfig::new().set_number_of_retries(0);
    let mut connection = ConnectionManager::new_with_config(client, config).await?;
    let mut number = 0;
    while run.going() {
        number += 1;
        run.expect("incr", connection.incr("manager", 1).await?, number);
        let large = "x".repeat(100_000);
        let () = connection.set("manager:large", &large).await?;
        run.expect(
            "large",
            connection.strlen("manager:large").await?,
            large.len(),
        );
        run.did("manager");
    }
    Ok(())
}

async fn pubsub(client: Client, run: Run) -> RedisResult<()> {
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe("news").await?;
    subscriber.psubscribe("n?ws").await?;
    let mut publisher = client.get_multiplexed_async_connection().await?;
    let listener = tokio::spawn(async move {
        let mut heard = Vec::new();
        let mut messages = subscriber.into_on_message();
        while let Some(message) = messages.next().await {
            match message.get_payload::<i64>() {
                Ok(-1) => break,
                Ok(number) => heard.push(number),
                Err(_) => break,
            }
        }
        heard
    });
    let mut number = 0;
    while run.going() {
        run.expect("publish", publisher.publish("news", number).await?, 2);
        number += 1;
        run.did("pubsub");
    }
    let _: i64 = publisher.publish("news", -1).await?;
    let heard = listener.await.expect("no panic");
    let expected: Vec<i64> = (0..number).flat_map(|each| [each, each]).collect();
    run.expect_sequence("messages", &heard, &expected);
    Ok(())
}

async fn script(client: Client, run: Run) -> RedisResult<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let mut number = 0;
    while run.going() {
        number += 1;
        let found: i64 = script
            .key("script")
            .arg(1)
            .invoke_async(&mut connection)
            .await?;
        run.expect("script", found, number);
        run.did("script");
    }
    Ok(())
}

async fn blocking_list(client: Client, run: Run) -> RedisResult<()> {
    let mut producer = client.get_multiplexed_async_connection().await?;
    let (worker, told) = (client.clone(), run.clone());
    let working = tokio::task::spawn_blocking(move || -> RedisResult<Vec<i64>> {
        let mut connection = worker.get_connection()?;
        let mut taken = Vec::new();
        loop {
            match connection.blpop("queue", 0.0)? {
                Some::<(String, i64)>((_, -1)) => return Ok(taken),
                Some((_, number)) => taken.push(number),
                None => {}
            }
            told.did("blocking list");
        }
    });
    let mut number = 0;
    while run.going() {
        let _: i64 = producer.rpush("queue", number).await?;
        number += 1;
    }
    let _: i64 = producer.rpush("queue", -1).await?;
    let taken = working.await.expect("no panic")?;
    run.expect_sequence("taken", &taken, &(0..number).collect::<Vec<_>>());
    Ok(())
}
