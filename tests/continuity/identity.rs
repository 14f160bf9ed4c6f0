//! Who a session is: user, database, protocol version, name and id are the same on every master.

use crate::shuttle::{Work, to_and_fro};
use crate::support::*;

/// One client, and all that it knows of itself.
struct Someone {
    wire: Wire,
    /// What it says on a fresh connection to become who it is.
    login: &'static [&'static str],
    id: Value,
    whoami: &'static str,
    name: Value,
    /// A command, and how its reply begins on the wire.
    probes: &'static [(&'static str, &'static str)],
}

/// How somebody logs in, who and what he is called then, and his probes.
type Person = (
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const PEOPLE: [Person; 6] = [
    (&[], "default", "", &[("GET where", "$4\r\nzero")]),
    (
        &["HELLO 3 AUTH writer pw SETNAME third"],
        "writer",
        "third",
        &[
            ("GET nothing", "_\r\n"),
            ("GET where", "$4\r\nzero"),
            ("HGETALL nothing", "%0\r\n"),
        ],
    ),
    (
        &["AUTH reader pw", "CLIENT SETNAME second", "SELECT 3"],
        "reader",
        "second",
        &[
            ("SET where x", "-NOPERM"),
            ("GET where", "$5\r\nthree"),
            ("GET nothing", "$-1\r\n"),
        ],
    ),
    (
        &["SELECT 3", "HELLO 3", "AUTH writer pw"],
        "writer",
        "",
        &[("GET where", "$5\r\nthree"), ("CONFIG GET port", "-NOPERM")],
    ),
    (
        &[
            "AUTH reader pw",
            "HELLO 3 SETNAME gone",
            "SELECT 3",
            "RESET",
        ],
        "default",
        "",
        &[("GET where", "$4\r\nzero"), ("GET nothing", "$-1\r\n")],
    ),
    (
        &["HELLO 3", "HELLO 2 AUTH writer pw", "CLIENT SETNAME back"],
        "writer",
        "back",
        &[("GET nothing", "$-1\r\n"), ("GET where", "$4\r\nzero")],
    ),
];

/// The beginning of a reply as it stands on the wire, as long as `like`.
async fn begins(wire: &mut Wire, command: &str, like: &str) -> String {
    const LAST: &[u8] = b"$11\r\nlast-answer\r\n";
    let mut pipeline = Vec::new();
    put_request(&mut pipeline, &command.split(' ').collect::<Vec<_>>());
    put_request(&mut pipeline, &["ECHO", "last-answer"]);
    wire.send_raw(&pipeline).await.unwrap();
    let (bytes, _) = wire.raw_until(LAST, SOON).await;
    String::from_utf8_lossy(&bytes)
        .chars()
        .take(like.len())
        .collect()
}

impl Someone {
    async fn come(proxy: &Proxy, which: usize) -> Someone {
        let (login, whoami, name, probes) = PEOPLE[which];
        let mut wire = client(proxy).await;
        for line in login {
            let reply = wire.run(line).await.unwrap();
            assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
        }
        let name = match name {
            "" => Value::Null,
            name => Value::bulk(name),
        };
        Someone {
            id: wire.run("CLIENT ID").await.unwrap(),
            wire,
            login,
            whoami,
            name,
            probes,
        }
    }

    async fn is_the_same(&mut self) {
        let (wire, login) = (&mut self.wire, self.login);
        assert_eq!(wire.run("CLIENT ID").await.unwrap(), self.id, "{login:?}");
        let whoami = wire.run("ACL WHOAMI").await.unwrap().text();
        assert_eq!(whoami, self.whoami, "{login:?}");
        let name = wire.run("CLIENT GETNAME").await.unwrap();
        assert_eq!(name, self.name, "{login:?}");
        for (command, like) in self.probes {
            assert_eq!(
                begins(wire, command, like).await,
                *like,
                "{login:?}: {command}"
            );
        }
    }
}

/// Sessions that do nothing while the master changes are the same, and so are those that do, on
/// lanes and on connections of their own.
#[tokio::test]
async fn sessions_are_who_they_were_through_switchovers() {
    let shard = Shard::redis(1).await;
    for node in 0..2 {
        let mut wire = shard.wire(node).await;
        for user in [
            "ACL SETUSER writer on >pw ~* &* +@all -config",
            "ACL SETUSER reader on >pw ~* +@read +@connection +acl|whoami",
        ] {
            assert!(wire.run(user).await.unwrap().ok());
        }
    }
    let proxy = shard.proxy_with(patient()).await;
    let mut setting = client(&proxy).await;
    for line in ["SET where zero", "SELECT 3", "SET where three"] {
        assert!(setting.run(line).await.unwrap().ok());
    }
    let mut people = Vec::new();
    for which in 0..PEOPLE.len() {
        people.push(Someone::come(&proxy, which).await);
    }
    let work = Work::default();
    let mut busy = Vec::new();
    for which in 0..PEOPLE.len() {
        let mut someone = Someone::come(&proxy, which).await;
        let work = work.clone();
        busy.push(tokio::spawn(async move {
            while !work.is_over() {
                someone.is_the_same().await;
                work.did_one();
            }
        }));
    }
    to_and_fro(&shard, &proxy, 6, async || {
        work.goes_on(12).await;
        for someone in &mut people {
            someone.is_the_same().await;
        }
    })
    .await;
    work.end();
    for someone in busy {
        someone.await.unwrap();
    }
}

/// Kvrocks: the password decides which keys there are. `RESET` must never reach the server, where
/// it would make anybody an administrator.
#[tokio::test]
async fn namespaces_of_kvrocks_stay_apart_through_switchovers() {
    let Some(shard) = Shard::kvrocks(1).await else {
        return;
    };
    let mut nodes = [shard.wire(0).await, shard.wire(1).await];
    for node in &mut nodes {
        for line in [
            "CONFIG SET masterauth secret",
            "CONFIG SET requirepass secret",
        ] {
            assert!(node.run(line).await.unwrap().ok(), "{line}");
        }
        assert!(node.run("AUTH secret").await.unwrap().ok());
        for line in ["NAMESPACE ADD one token-one", "NAMESPACE ADD two token-two"] {
            assert!(node.run(line).await.unwrap().ok(), "{line}");
        }
    }
    let settings = Settings {
        shard: "password = \"secret\"".to_owned(),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut people = Vec::new();
    for (token, space) in [
        ("token-one", "one"),
        ("token-two", "two"),
        ("secret", "admin"),
    ] {
        let mut wire = client(&proxy).await;
        let refused = wire.run("GET where").await.unwrap();
        assert!(refused.text().starts_with("NOAUTH"), "{refused:?}");
        assert!(wire.run(&format!("AUTH {token}")).await.unwrap().ok());
        assert!(wire.run(&format!("SET where {space}")).await.unwrap().ok());
        people.push((wire, space));
    }
    for round in 0..4 {
        for (wire, space) in &mut people {
            let mut pipeline = Vec::new();
            put_request(&mut pipeline, &["GET", "where"]);
            put_request(&mut pipeline, &["MULTI"]);
            put_request(&mut pipeline, &["GET", "where"]);
            put_request(&mut pipeline, &["EXEC"]);
            wire.send_raw(&pipeline).await.unwrap();
            assert_eq!(wire.reply().await.unwrap(), Value::bulk(*space));
            for _ in 0..2 {
                wire.reply().await.unwrap();
            }
            let results = wire.reply().await.unwrap();
            assert_eq!(results, Value::Array(vec![Value::bulk(*space)]));
        }
        let target = shard.addr((round + 1) % 2);
        let report = switchover(&proxy, &target).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        wait_until("the old master follows", async || {
            let info = nodes[round % 2]
                .run("INFO replication")
                .await
                .unwrap()
                .text();
            field(&info, "master_link_status") == Some("up")
        })
        .await;
    }
    for (wire, space) in &mut people {
        let reset = wire.run("RESET").await.unwrap();
        assert_eq!(reset, Value::Simple("RESET".into()));
        for command in ["GET where", "CONFIG GET requirepass", "NAMESPACE GET *"] {
            let refused = wire.run(command).await.unwrap();
            assert!(refused.text().starts_with("NOAUTH"), "{space}: {refused:?}");
        }
    }
    // In a transaction, and while something is open on a connection of the session's own.
    let mut wire = client(&proxy).await;
    assert!(wire.run("AUTH token-one").await.unwrap().ok());
    assert!(wire.run("MULTI").await.unwrap().ok());
    let reset = wire.run("RESET").await.unwrap();
    assert_eq!(reset, Value::Simple("RESET".into()));
    let refused = wire.run("GET where").await.unwrap();
    assert!(refused.text().starts_with("NOAUTH"), "{refused:?}");
}
