//! fred in RESP3, without reconnecting and with one attempt for each command.

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::scripts::Script;
use pointsman_clients::{Activities, Run, arguments};

fn builder(host: &str, port: u16) -> Builder {
    let mut builder = Builder::from_config(Config {
        server: ServerConfig::new_centralized(host, port),
        version: RespVersion::RESP3,
        ..Config::default()
    });
    builder.with_connection_config(|config| config.max_command_attempts = 1);
    builder
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (host, port, engine) = arguments();
    let builder = builder(&host, port);
    let (run, mut all) = (Run::default(), Activities::default());
    all.begin(
        &run,
        "shared",
        shared(connect(&builder).await?, run.clone()),
    );
    all.begin(
        &run,
        "pipeline",
        pipeline(connect(&builder).await?, run.clone()),
    );
    all.begin(
        &run,
        "script",
        script(connect(&builder).await?, run.clone()),
    );
    let subscriber = builder.build_subscriber_client()?;
    subscriber.init().await?;
    all.begin(
        &run,
        "pubsub",
        pubsub(subscriber, connect(&builder).await?, run.clone()),
    );
    if engine == "redis" {
        let (worker, producer) = (connect(&builder).await?, connect(&builder).await?);
        all.begin(
            &run,
            "blocking list",
            blocking_list(worker, producer, run.clone()),
        );
    }
    run.live(all).await;
    Ok(())
}

async fn connect(builder: &Builder) -> Result<Client, Error> {
    let client = builder.build()?;
    client.init().await?;
    Ok(client)
}

/// Clones of one client ask at once; the answers come back to those who asked.
async fn shared(client: Client, run: Run) -> Result<(), Error> {
    let one = async |place: usize| -> Result<(), Error> {
        let key = format!("shared:{place}");
        let mut number: i64 = 0;
        while run.going() {
            number += 1;
            run.expect("incr", client.incr(&key).await?, number);
            let () = client
                .set(format!("{key}:{}", number % 500), number, None, None, false)
                .await?;
            run.did("shared");
        }
        for each in (number - 499).max(1)..=number {
            run.expect(
                "kept",
                client.get(format!("{key}:{}", each % 500)).await?,
                each,
            );
        }
        Ok(())
    };
    futures::future::try_join_all((0..8).map(one))
        .await
        .map(drop)
}

async fn pipeline(client: Client, run: Run) -> Result<(), Error> {
    let mut number: i64 = 0;
    while run.going() {
        let pipeline = client.pipeline();
        for _ in 0..20 {
            let () = pipeline.incr("pipeline").await?;
        }
        let found: Vec<i64> = pipeline.all().await?;
        run.expect("pipeline", found, (number + 1..=number + 20).collect());
        let transaction = client.multi();
        let () = transaction.incr("pipeline").await?;
        let () = transaction.get("pipeline").await?;
        number += 21;
        run.expect("exec", transaction.exec(true).await?, (number, number));
        run.did("pipeline");
    }
    Ok(())
}

async fn script(client: Client, run: Run) -> Result<(), Error> {
    let script = Script::from_lua("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    script.load(&client).await?;
    let mut number: i64 = 0;
    while run.going() {
        number += 1;
        // Loaded once: there is no second attempt with the text.
        let found: i64 = script.evalsha(&client, vec!["script"], vec![1]).await?;
        run.expect("script", found, number);
        run.did("script");
    }
    Ok(())
}

async fn pubsub(subscriber: SubscriberClient, publisher: Client, run: Run) -> Result<(), Error> {
    let mut messages = subscriber.message_rx();
    subscriber.subscribe("news").await?;
    subscriber.psubscribe("n?ws").await?;
    let listener = tokio::spawn(async move {
        let mut heard: Vec<i64> = Vec::new();
        while let Ok(message) = messages.recv().await {
            match message.value.convert() {
                Ok(-2) => {}
                Ok(-1) | Err(_) => break,
                Ok(number) => heard.push(number),
            }
        }
        heard
    });
    // The library does not wait until the server has confirmed.
    while publisher.publish::<i64, _, _>("news", -2).await? < 2 {}
    let mut number = 0;
    while run.going() {
        let heard: i64 = publisher.publish("news", number).await?;
        run.expect("publish", heard, 2);
        number += 1;
        run.did("pubsub");
    }
    let () = publisher.publish("news", -1).await?;
    let heard = listener.await.expect("no panic");
    let expected: Vec<i64> = (0..number).flat_map(|each| [each, each]).collect();
    run.expect_sequence("messages", &heard, &expected);
    Ok(())
}

async fn blocking_list(worker: Client, producer: Client, run: Run) -> Result<(), Error> {
    let told = run.clone();
    let working = tokio::spawn(async move {
        let mut taken: Vec<i64> = Vec::new();
        loop {
            let (_, number): (String, i64) = worker.blpop("queue", 0.0).await?;
            if number == -1 {
                return Ok::<_, Error>(taken);
            }
            taken.push(number);
            told.did("blocking list");
        }
    });
    let mut number = 0;
    while run.going() {
        let () = producer.rpush("queue", number).await?;
        number += 1;
    }
    let () = producer.rpush("queue", -1).await?;
    let taken = working.await.expect("no panic")?;
    run.expect_sequence("taken", &taken, &(0..number).collect::<Vec<_>>());
    Ok(())
}
