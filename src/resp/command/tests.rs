//! What the table says about the commands whose mistake would be dear.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Class::{Admin, Blocking, MayWrite, Read, Refused, Write};
use super::policy::{Group, Policy, Ruling};
use super::table::{BLOCKABLES, CONTAINERS, ROWS};
use super::*;

/// The verdict on a command line, words split at spaces.
fn verdict(line: &str) -> Verdict {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    classify(words[0], |at| words.get(at).copied(), words.len())
}

#[track_caller]
fn check(line: &str, class: Class, writes: bool, path: Path) {
    assert_eq!(
        verdict(line),
        Verdict {
            class,
            writes,
            path
        },
        "{line}"
    );
}

/// Every row of the table: name, subcommand, verdict.
fn rows() -> Vec<(&'static str, Option<&'static str>, Verdict)> {
    let plain = ROWS.iter().flat_map(|part| part.iter());
    let mut rows: Vec<_> = plain
        .map(|&(name, verdict)| (name, None, verdict))
        .collect();
    for &(name, alone, known) in CONTAINERS {
        rows.push((name, None, alone));
        rows.extend(
            known
                .iter()
                .map(|&(sub, verdict)| (name, Some(sub), verdict)),
        );
    }
    for &(name, plain, blocking) in BLOCKABLES {
        rows.push((name, None, plain));
        rows.push((name, None, blocking));
    }
    rows
}

#[test]
fn the_case_of_a_name_and_a_subcommand_does_not_matter() {
    for name in ["GET", "get", "GeT"] {
        check(name, Read, false, Path::Lane);
    }
    for line in ["CLIENT ID", "client id", "Client iD"] {
        assert_eq!(verdict(line).path, Path::Local(Local::ClientId), "{line}");
    }
    check("georadiusbymember_ro k m 1 m", Read, false, Path::Lane);
    let hang_up = Path::Local(Local::HangUp);
    check("Host: example.com", Class::Session, false, hang_up);
}

#[test]
fn every_row_is_found_by_its_own_name() {
    for (name, sub, expected) in rows() {
        assert!(
            is_known(name.as_bytes(), sub.map(str::as_bytes)),
            "{name} {sub:?}"
        );
        if BLOCKABLES.iter().any(|blockable| blockable.0 == name) {
            continue;
        }
        let line = [name].into_iter().chain(sub).collect::<Vec<_>>().join(" ");
        assert_eq!(verdict(&line.to_lowercase()), expected, "{line}");
        assert_eq!(line, line.to_uppercase());
    }
}

#[test]
fn a_command_that_is_not_in_the_table_is_a_write_on_a_connection_of_its_own() {
    let names = [
        "NOSUCH",
        "",
        "GET\0",
        "GETX",
        "GE",
        "g\u{e9}t",
        "GRAPH.QUERY",
        &"X".repeat(4096),
    ];
    for name in names {
        check(name, Write, true, Path::Pinned(Pin::Sticky));
        assert!(!is_known(name.as_bytes(), None), "{name}");
    }
}

#[test]
fn a_subcommand_that_is_not_in_the_table_or_not_in_sight_is_a_write_on_a_connection_of_its_own() {
    for (name, ..) in CONTAINERS {
        check(
            &format!("{name} NOSUCH"),
            Write,
            true,
            Path::Pinned(Pin::Sticky),
        );
        let unseen = classify(name.as_bytes(), |_| None, 2);
        assert_eq!(
            unseen, UNKNOWN,
            "{name} with an argument that is not known yet"
        );
    }
}

#[test]
fn a_command_without_the_subcommand_that_it_needs_gets_its_error_from_the_server() {
    check("CLIENT", Admin, false, Path::Lane);
    check("SCRIPT", Admin, false, Path::Lane);
    check("COMMAND", Admin, false, Path::Pinned(Pin::OneShot));
}

/// A session whose connection may be in a state that nobody knows cannot be moved to another
/// master.
#[test]
fn settings_of_a_server_leave_the_connection_as_it_was() {
    for line in ["DEBUG PROTOCOL attrib", "DEBUG PAUSE-CRON 1"] {
        check(line, Admin, true, Path::Pinned(Pin::OneShot));
    }
}

/// What a lane carries and is no write is asked again when its connection breaks.
#[test]
fn what_has_an_effect_beside_the_data_is_not_repeated() {
    let own = Path::Pinned(Pin::OneShot);
    for line in [
        "SLOWLOG RESET",
        "LATENCY RESET",
        "COMMANDLOG RESET slow",
        "PERFLOG RESET",
        "ACL LOG RESET",
        "CONFIG RESETSTAT",
    ] {
        check(line, Admin, false, own);
    }
    check("FT.CURSOR READ i 1", Read, false, own);
    let effects = [
        "RESET", "SET", "DEL", "ADD", "KILL", "PURGE", "SAVE", "LOAD",
    ];
    for (name, sub, verdict) in rows() {
        let has_effect = sub.is_some_and(|sub| effects.contains(&sub));
        let repeated = verdict.path == Path::Lane && !verdict.writes;
        assert!(!(has_effect && repeated), "{name} {sub:?}");
    }
}

#[test]
fn commands_that_look_like_reads_but_move_the_log_are_held() {
    for line in [
        "PUBLISH c m",
        "SPUBLISH c m",
        "MPUBLISH c m",
        "PFCOUNT k",
        "GETEX k",
        "SORT k",
        "BITFIELD k",
        "GEORADIUS k 1 1 1 m",
        "GEORADIUSBYMEMBER k m 1 m",
        "XREADGROUP GROUP g c STREAMS k >",
        "XAUTOCLAIM k g c 0 0",
        "XCLAIM k g c 0 0-1",
        "EVAL s 0",
        "EVALSHA s 0",
        "FCALL f 0",
        "SCRIPT LOAD s",
        "SCRIPT FLUSH",
        "FUNCTION LOAD f",
        "FUNCTION DELETE f",
        "FUNCTION FLUSH",
        "FUNCTION RESTORE f",
        "NAMESPACE ADD n t",
        "ZDIFFSTORE d 1 k",
        "EXEC",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "RESTORE k 0 v",
        "MIGRATE h p k 0 1",
        "MOVE k 1",
        "DEBUG SLEEP 0",
        "TDIGEST.QUANTILE k 0.5",
        "TDIGEST.CDF k 1",
        "TDIGEST.RANK k 1",
        "TDIGEST.REVRANK k 1",
        "TDIGEST.BYRANK k 1",
        "TDIGEST.BYREVRANK k 1",
        "TDIGEST.TRIMMED_MEAN k 0 1",
    ] {
        assert!(verdict(line).writes, "{line}");
    }
}

#[test]
fn scripts_keep_off_lanes_where_they_would_block_their_neighbours() {
    let own = Path::Pinned(Pin::OneShot);
    check("EVAL s 0", MayWrite, true, own);
    check("FCALL f 0", MayWrite, true, own);
    check("EVALSHA_RO s 0", Read, false, own);
}

/// What a node that stands in for the master is asked is [`Read`]: of itself it must not speak.
#[test]
fn what_is_about_the_server_is_no_read_of_data() {
    for line in [
        "ROLE",
        "PING",
        "LASTSAVE",
        "TIME",
        "PUBSUB NUMSUB c",
        "PUBSUB CHANNELS",
        "SCRIPT EXISTS s",
        "FUNCTION LIST",
        "FUNCTION DUMP",
        "COMMAND COUNT",
        "OBJECT HELP",
    ] {
        let verdict = verdict(line);
        assert!(verdict.class != Read && !verdict.writes, "{line}");
    }
    let about_data = ["OBJECT", "XINFO", "MEMORY"];
    for (name, sub, verdict) in rows() {
        if verdict.class == Read && verdict.path == Path::Lane && sub.is_some() {
            assert!(about_data.contains(&name), "{name} {sub:?}");
        }
    }
}

#[test]
fn reads_are_never_held() {
    for line in [
        "GET k",
        "SORT_RO k",
        "BITFIELD_RO k",
        "GEORADIUS_RO k 1 1 1 m",
        "EVAL_RO s 0",
        "FCALL_RO f 0",
        "TOUCH k",
        "OBJECT ENCODING k",
        "SCAN 0",
        "XREAD STREAMS k 0",
        "XREAD BLOCK 0 STREAMS k $",
        "INFO",
        "PING",
        "CONFIG GET x",
        "CLUSTER SLOTS",
        "SCRIPT KILL",
        "JSON.GET k",
        "FT.SEARCH i q",
        "TDIGEST.MIN k",
        "TDIGEST.MAX k",
        "TDIGEST.INFO k",
    ] {
        assert!(!verdict(line).writes, "{line}");
    }
}

#[test]
fn reading_a_stream_blocks_only_with_the_option() {
    let blocks = Path::Pinned(Pin::Blocking);
    check("XREAD STREAMS k 0", Read, false, Path::Lane);
    check("xread count 1 streams block 0", Read, false, Path::Lane);
    check("XREAD COUNT 1 BLOCK 0 STREAMS k $", Blocking, false, blocks);
    check(
        "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS k >",
        MayWrite,
        true,
        Path::Lane,
    );
    check(
        "XREADGROUP GROUP g c CLAIM 5 STREAMS k >",
        MayWrite,
        true,
        Path::Lane,
    );
    check(
        "XREADGROUP GROUP g c COUNT 1 BLOCK 0 NOACK STREAMS k >",
        Blocking,
        true,
        blocks,
    );
    // Names that look like options: streams is one here, and block may as well be the option.
    check(
        "XREADGROUP GROUP streams streams BLOCK 0 STREAMS k >",
        Blocking,
        true,
        blocks,
    );
    check(
        "XREADGROUP GROUP block c STREAMS k >",
        Blocking,
        true,
        blocks,
    );
    // What the walk does not understand or can't see.
    check("XREAD NOSUCH 1 STREAMS k 0", Blocking, false, blocks);
    assert_eq!(classify(b"XREAD", |_| None, 4).path, blocks);
    // Too short for anything but an error.
    check("XREAD", Read, false, Path::Lane);
    check("XREAD COUNT 1", Read, false, Path::Lane);
    check("XREAD BLOCK", Blocking, false, blocks);
}

#[test]
fn what_would_change_the_master_behind_the_proxy_is_refused_with_advice() {
    for line in [
        "REPLICAOF NO ONE",
        "SLAVEOF h 1",
        "FAILOVER",
        "SHUTDOWN NOSAVE",
        "PSYNC ? -1",
        "SYNC",
        "REPLCONF ACK 1",
        "CLUSTER FAILOVER",
        "CLUSTER RESET",
        "CLUSTERX SETNODES x 1",
        "APPLYBATCH x",
        "_FETCH_META",
        "_FETCH_FILE f",
        "_DB_NAME",
        "SCRIPT DEBUG YES",
        "RESTORE-ASKING k 0 v",
    ] {
        let settled = Policy::default().settle(verdict(line));
        assert!(matches!(settled.path, Path::Refused(_)), "{line}");
    }
    for (name, sub, verdict) in rows() {
        let text = match verdict.path {
            Path::Refused(text) => text,
            Path::Ruled(ruled) => ruled.refusal,
            _ => continue,
        };
        assert!(
            text.starts_with("ERR ") && text.contains("refused by pointsman: "),
            "{name}: {text}"
        );
        assert!(!text.contains(['\r', '\n']), "{name}: {text}");
        let named = sub.map_or(name.to_string(), |sub| format!("{name} {sub}"));
        let of_replication = text.contains("replication protocol");
        assert!(
            of_replication || text.to_uppercase().contains(&named),
            "{named}: {text}"
        );
    }
}

#[test]
fn class_and_path_of_every_row_agree() {
    for (
        name,
        sub,
        Verdict {
            class,
            writes,
            path,
        },
    ) in rows()
    {
        let row = format!("{name} {sub:?}");
        assert_eq!(class == Refused, matches!(path, Path::Refused(_)), "{row}");
        assert!(class != Read || !writes, "{row}");
        assert!(!matches!(class, Write | MayWrite) || writes, "{row}");
        assert!(class != Blocking || path != Path::Lane, "{row}");
        assert!(!matches!(path, Path::Local(_)) || !writes, "{row}");
        if let Path::Ruled(ruled) = path {
            assert!(
                matches!(ruled.passed.path, Path::Pinned(_)),
                "{row}: not for a shared connection"
            );
        }
    }
}

#[test]
fn the_operator_decides_group_by_group() {
    let lines = [
        ("REPLICAOF h 1", Group::Replicaof, Pin::OneShot),
        ("SHUTDOWN", Group::Shutdown, Pin::OneShot),
        ("FAILOVER", Group::Failover, Pin::OneShot),
        ("CLIENT PAUSE 1", Group::ClientPause, Pin::Pause),
        ("CLIENT UNPAUSE", Group::ClientPause, Pin::Unpause),
        ("PSYNC ? -1", Group::Replication, Pin::Tunnel),
        ("REPLCONF capa eof", Group::Replication, Pin::Sticky),
        ("CLUSTER RESET", Group::Cluster, Pin::OneShot),
        ("SCRIPT DEBUG YES", Group::ScriptDebug, Pin::Tunnel),
    ];
    for (line, group, pin) in lines {
        for other in lines.map(|(_, other, _)| other) {
            let policy = lines
                .iter()
                .fold(Policy::default(), |policy, (_, group, _)| {
                    policy.with(*group, Ruling::Refuse)
                })
                .with(other, Ruling::Pass);
            let settled = policy.settle(verdict(line)).path;
            if other == group {
                assert_eq!(settled, Path::Pinned(pin), "{line}");
            } else {
                assert!(matches!(settled, Path::Refused(_)), "{line}");
            }
        }
    }
}

#[test]
fn a_pause_is_passed_and_failover_can_mean_the_proxys_own() {
    let policy = Policy::default();
    let paused = policy.settle(verdict("CLIENT PAUSE 1"));
    assert_eq!(paused.path, Path::Pinned(Pin::Pause));
    let policy = policy.with(Group::Failover, Ruling::Switchover);
    let failover = policy.settle(verdict("FAILOVER")).path;
    assert_eq!(failover, Path::Local(Local::Failover));
}
