//! Which server a node runs, in which version, and what it knows.
//!
//! **Invariant:** where a command decides about safety it is probed on the node itself; the version
//! number only decides where the same command behaves differently between versions.

use std::fmt;

use crate::resp::reply::{Info, Value};

/// The server software of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Redis,
    Valkey,
    Kvrocks,
}

impl fmt::Display for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Engine::Redis => "redis",
            Engine::Valkey => "valkey",
            Engine::Kvrocks => "kvrocks",
        })
    }
}

/// Major, minor, patch. A build without a number (`unstable`) is 0.0.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    fn parse(text: &str) -> Version {
        let text = text.strip_prefix('v').unwrap_or(text);
        let digits = |part: &str| {
            let end = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part.get(..end)
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_default()
        };
        let mut parts = text.split('.').map(digits);
        let mut next = || parts.next().unwrap_or_default();
        Version(next(), next(), next())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Engine and version as INFO server names them.
pub fn identify(server: &Info) -> (Engine, Version) {
    let parsed = |field: &str| server.get(field).map(Version::parse);
    if let Some(version) = parsed("kvrocks_version") {
        return (Engine::Kvrocks, version);
    }
    if let Some(version) = parsed("valkey_version") {
        return (Engine::Valkey, version);
    }
    (Engine::Redis, parsed("redis_version").unwrap_or_default())
}

/// How a node is told its role, and what else it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// `REPLICAOF`, or `SLAVEOF` where that is the only word (Kvrocks before 2.11, Redis before 5).
    pub role_command: &'static str,
    /// `CLIENT PAUSE <ms> WRITE` holds writes of clients that bypass the proxy.
    pub pause: bool,
    /// Replicas stay attached when the node is told to follow somebody else. Redis before 7 cuts
    /// them off, so everything must have been carried before the fence.
    pub feeds_behind_fence: bool,
}

impl Abilities {
    /// Questions that change nothing on any server; the answers go to [`Abilities::from_answers`].
    pub const PROBES: [&'static [&'static str]; 2] = [
        &["COMMAND", "INFO", "replicaof"],
        &["CLIENT", "PAUSE", "probe", "WRITE"],
    ];

    pub fn from_answers(engine: Engine, version: Version, answers: &[Value]) -> Abilities {
        let replicaof = match answers.first() {
            Some(Value::Array(items)) => matches!(items.first(), Some(Value::Array(_))),
            _ => engine != Engine::Kvrocks && version >= Version(5, 0, 0),
        };
        // A server that knows PAUSE complains about the number, not about the subcommand.
        let complains_about_number = answers
            .get(1)
            .and_then(Value::error)
            .is_some_and(|text| text.to_ascii_lowercase().contains("integer"));
        let pause = complains_about_number
            && match engine {
                Engine::Redis => version >= Version(6, 2, 0),
                Engine::Valkey => true,
                // Builds without a number may carry a variant that never answers CLIENT PAUSE.
                Engine::Kvrocks => version >= Version(2, 16, 0),
            };
        Abilities {
            role_command: if replicaof { "REPLICAOF" } else { "SLAVEOF" },
            pause,
            feeds_behind_fence: engine != Engine::Redis || version >= Version(7, 0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn identified(text: &'static str) -> (Engine, Version) {
        identify(&Info::of(&Value::Bulk(Bytes::from_static(text.as_bytes()))).unwrap())
    }

    #[test]
    fn the_engine_is_told_by_the_field_that_only_it_has() {
        assert_eq!(
            identified("redis_version:7.0.15"),
            (Engine::Redis, Version(7, 0, 15))
        );
        let kvrocks = "version:unstable\r\nkvrocks_version:unstable\r\nredis_version:4.0.0";
        assert_eq!(identified(kvrocks), (Engine::Kvrocks, Version(0, 0, 0)));
        let valkey = "redis_version:7.2.4\r\nvalkey_version:8.1.0-rc1";
        assert_eq!(identified(valkey), (Engine::Valkey, Version(8, 1, 0)));
    }

    #[test]
    fn pause_counts_only_when_the_node_knows_it() {
        let answers = |text: &str| [Value::Error("ERR".into()), Value::Error(text.into())];
        let knows = answers("ERR timeout is not an integer or out of range");
        let known = |version| Abilities::from_answers(Engine::Redis, version, &knows).pause;
        assert!(known(Version(7, 0, 0)));
        assert!(
            !known(Version(6, 0, 9)),
            "before 6.2 there is no WRITE mode"
        );
        let syntax = answers("ERR Syntax error, try CLIENT LIST|INFO|KILL ip:port|GETNAME|SETNAME");
        let kvrocks = Abilities::from_answers(Engine::Kvrocks, Version(2, 10, 0), &syntax);
        assert!(!kvrocks.pause);
        assert_eq!(kvrocks.role_command, "SLAVEOF");
    }
}
