//! Claims about the config file: what is accepted, and how everything that is wrong is told.

mod access;
mod manual;

use std::time::Duration;

use pointsman::config::{CommandAnswer, Config, ConfigErrors, LogFormat, LogLevel};

const MINIMAL: &str = r#"
[admin]
listen = "127.0.0.1:9400"

[[shard]]
name = "main"
listen = "127.0.0.1:6380"
nodes = ["127.0.0.1:6379"]
"#;

/// Checks the problems of a text: `(line, column, start of the message)` for each, in order.
fn check(text: &str, expected: &[(usize, usize, &str)]) {
    let errors = Config::parse(text, "config.toml").expect_err("the text has problems");
    let found = errors.problems();
    for (index, (line, column, message)) in expected.iter().enumerate() {
        let problem = found
            .get(index)
            .unwrap_or_else(|| panic!("missing: {message}\n{errors}"));
        assert!(
            (problem.line, problem.column) == (*line, *column)
                && problem.message.starts_with(message),
            "expected {line}:{column} {message}\n   found {}:{} {}",
            problem.line,
            problem.column,
            problem.message
        );
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "more problems than expected:\n{errors}"
    );
}

/// The minimal config with something more in a section that it does not have.
fn minimal_with(more: &str) -> String {
    format!("{more}\n{MINIMAL}")
}

fn parse(text: &str) -> Config {
    Config::parse(text, "config.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_minimal_file_is_enough_and_the_rest_has_its_default() {
    let config = parse(MINIMAL);

    assert_eq!(config.admin.listen, "127.0.0.1:9400");
    assert_eq!(config.proxy.clients_max, 10_000);
    assert_eq!(config.proxy.bulk_bytes_max, 512 * 1024 * 1024);
    assert_eq!(config.proxy.hold_budget, Duration::from_secs(5));
    assert_eq!(config.proxy.log_format, LogFormat::Text);
    assert_eq!(config.proxy.log_level, LogLevel::Info);
    assert_eq!(config.switchover.sync_timeout, Duration::from_millis(100));
    assert_eq!(config.switchover.pause_timeout, Duration::from_millis(500));
    assert!(!config.switchover.force_on_timeout);
    let shard = config
        .shard("main")
        .expect("the shard is found by its name");
    assert_eq!(shard.nodes, ["127.0.0.1:6379"]);
    assert_eq!(shard.password, None);
    assert!(config.proxy.worker_count() >= 1);
}

#[test]
fn everything_that_is_written_is_used() {
    let text = r#"
[proxy]
workers = 3
lanes = 0x10
clients_max = 1_000
state_dir = "/var/lib/pointsman"
log_format = "json"
log_level = "debug"
[admin]
listen = "[::1]:0"
[switchover]
force_on_timeout = true
max_lag = 0
fence_address = "proxy.example"
[[shard]]
name = "a.1"
listen = "localhost:0"
nodes = ["[::1]:6379", "redis-1.example:6379"]
username = "pointsman"
password = "s3cret"
[[shard]]
name = "b"
listen = "127.0.0.1:6381"
nodes = ["127.0.0.1:6379"]
"#;

    let config = parse(text);

    assert_eq!(config.proxy.worker_count(), 3);
    assert_eq!((config.proxy.lanes, config.proxy.clients_max), (16, 1000));
    assert_eq!(config.proxy.state_dir.to_str(), Some("/var/lib/pointsman"));
    assert_eq!(
        (config.proxy.log_format, config.proxy.log_level),
        (LogFormat::Json, LogLevel::Debug)
    );
    assert!(config.switchover.force_on_timeout);
    assert_eq!(config.switchover.max_lag, 0);
    assert_eq!(
        config.switchover.fence_address.as_deref(),
        Some("proxy.example")
    );
    assert_eq!(config.shards.len(), 2);
    assert_eq!(config.shards[0].username.as_deref(), Some("pointsman"));
    assert_eq!(
        config.shards[0]
            .password
            .as_ref()
            .map(|secret| secret.expose()),
        Some("s3cret")
    );
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    check(
        "",
        &[
            (
                1,
                1,
                "there is no [admin] section: add it with listen = \"127.0.0.1:9400\"",
            ),
            (
                1,
                1,
                "there is no [[shard]]: add one with name, listen and nodes",
            ),
        ],
    );
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let text = r#"[proxy]
workers = "two"
hold-budget-ms = 4
clients_max = 0
[admin]
listen = "127.0.0.1"
[bogus]
[[shard]]
name = "a b"
[[shard]]
name = "x"
listen = "127.0.0.1:6380"
nodes = ["a:1", "A:1", 3, "::1:5", "a:0", "a:x", ":1", "127.0.0.1:6380"]
username = "me"
"#;

    check(
        text,
        &[
            (2, 11, "`workers` is a text: write a number without quotes"),
            (
                3,
                1,
                "there is no key `hold-budget-ms` in [proxy]: did you mean `hold_budget_ms`?",
            ),
            (
                4,
                15,
                "`clients_max` is 0: set it to a number from 1 to 1000000",
            ),
            (
                6,
                10,
                "`listen` is \"127.0.0.1\": the port is missing: write host:port",
            ),
            (
                7,
                2,
                "there is no key `bogus` at the top of the file: the keys are proxy, admin",
            ),
            (8, 1, "[[shard]] has no `listen`: add listen = "),
            (8, 1, "[[shard]] has no `nodes`: add nodes = "),
            (
                9,
                8,
                "the shard name \"a b\" cannot stand in a URL: use up to 64 letters",
            ),
            (
                13,
                17,
                "the node \"A:1\" is there twice: remove one of them",
            ),
            (13, 24, "`nodes[2]` is a number: write a text in quotes"),
            (
                13,
                27,
                "the node \"::1:5\" is no address: an IPv6 address needs brackets",
            ),
            (
                13,
                36,
                "the node \"a:0\" is no address: a node needs its true port",
            ),
            (13, 43, "the node \"a:x\" is no address: `x` is no port"),
            (13, 50, "the node \":1\" is no address: the host is missing"),
            (
                13,
                56,
                "the proxy itself listens at \"127.0.0.1:6380\": name the address of the",
            ),
            (14, 12, "`username` has no `password` beside it"),
        ],
    );
}

#[test]
fn a_problem_is_shown_with_its_line() {
    let errors = Config::parse(&minimal_with("[proxy]\n\tlanes = 99999"), "etc/p.toml");

    let expected = "\
etc/p.toml:2:10: `lanes` is 99999: set it to a number from 0 to 1024
  2 |  lanes = 99999
    |          ^^^^^
1 problem in the config file";
    assert_eq!(errors.expect_err("out of range").to_string(), expected);
}

#[test]
fn what_becomes_of_a_group_of_commands_is_one_of_a_few_words() {
    let config = parse(&minimal_with(
        "[commands]\nfailover = \"switchover\"\nshutdown = \"pass\"\nclient_pause = \"refuse\"",
    ));
    assert_eq!(config.commands.failover, CommandAnswer::Switchover);
    assert_eq!(config.commands.shutdown, CommandAnswer::Pass);
    assert_eq!(config.commands.client_pause, CommandAnswer::Refuse);
    assert_eq!(config.commands.replication, CommandAnswer::Refuse);
    check(
        &minimal_with("[commands]\nshutdown = \"switchover\"\nreplica_of = \"pass\"\ncluster = 1"),
        &[
            (
                2,
                12,
                "`shutdown` is \"switchover\": set it to \"refuse\" or \"pass\"",
            ),
            (
                3,
                1,
                "there is no key `replica_of` in [commands]: did you mean `replicaof`?",
            ),
            (4, 11, "`cluster` is a number: write a text in quotes"),
        ],
    );
}

#[test]
fn wrong_types_are_named() {
    check(
        &minimal_with(
            "[proxy]\nworkers = 1.5\nlanes = -1\nlog_level = 3\nstate_dir = \"\"\n\
             [switchover]\nforce_on_timeout = \"yes\"\nmax_lag = 2020-01-01",
        ),
        &[
            (
                2,
                11,
                "`workers` is a number with a fraction: write a number without quotes",
            ),
            (3, 9, "`lanes` is -1: set it to a number from 0 to 1024"),
            (4, 13, "`log_level` is a number: write a text in quotes"),
            (
                5,
                13,
                "`state_dir` is empty: write a value or remove the key",
            ),
            (
                7,
                20,
                "`force_on_timeout` is a text: write true or false without quotes",
            ),
            (8, 11, "`max_lag` is a date: write a number without quotes"),
        ],
    );
}

#[test]
fn words_outside_a_choice_are_told_the_choice() {
    check(
        &minimal_with("[proxy]\nlog_format = \"xml\"\nlog_level = \"INFO\""),
        &[
            (
                2,
                14,
                "`log_format` is \"xml\": set it to \"text\" or \"json\"",
            ),
            (
                3,
                13,
                "`log_level` is \"INFO\": set it to \"info\" or \"error\" or",
            ),
        ],
    );
}

#[test]
fn sections_of_the_wrong_shape_are_told_the_right_one() {
    check(
        "admin = 3\nproxy = []\nshard = {}",
        &[
            (1, 9, "`admin` is a number: write a section [admin]"),
            (2, 9, "`proxy` is a list: write a section [proxy]"),
            (
                3,
                9,
                "`shard` is a table: head each shard with [[shard]], in double brackets",
            ),
        ],
    );
    check(
        "[admin]\nlisten = \"127.0.0.1:1\"\n[shard]\nname = \"x\"",
        &[(
            3,
            1,
            "`shard` is a table: head each shard with [[shard]], in double brackets",
        )],
    );
}

#[test]
fn names_and_listen_addresses_are_there_once() {
    let text = r#"
[admin]
listen = "127.0.0.1:9400"
[[shard]]
name = "a"
listen = "127.0.0.1:9400"
nodes = ["n1:1"]
[[shard]]
name = "a"
listen = "0.0.0.0:9400"
nodes = ["n2:1", "n1:1"]
"#;
    check(
        text,
        &[
            (
                6,
                10,
                "the proxy already listens at \"127.0.0.1:9400\": choose another port",
            ),
            (9, 8, "another shard is called \"a\": choose another name"),
            (
                10,
                10,
                "the proxy already listens at \"127.0.0.1:9400\": choose another port",
            ),
            (
                11,
                18,
                "the node \"n1:1\" is there twice: remove one of them",
            ),
        ],
    );
}

#[test]
fn ports_chosen_by_the_kernel_never_collide() {
    let text = MINIMAL.replace(":9400", ":0").replace(":6380", ":0");
    assert_eq!(parse(&text).shards[0].listen, "127.0.0.1:0");
}

#[test]
fn each_range_holds_at_its_ends_and_not_beyond() {
    for (key, low, high) in [
        ("workers", 0, 256),
        ("clients_max", 1, 1_000_000),
        ("inline_bytes_max", 64, 16 * 1024 * 1024),
        ("elements_max", 1, i64::from(i32::MAX)),
        ("pipeline_max", 1, 1_000_000),
        ("hold_budget_ms", 0, 3_600_000),
        ("connect_timeout_ms", 1, 3_600_000),
        ("busy_poll_us", 0, 1000),
    ] {
        for (value, valid) in [
            (low, true),
            (high, true),
            (low - 1, false),
            (high + 1, false),
        ] {
            let text = minimal_with(&format!("[proxy]\n{key} = {value}"));
            let parsed = Config::parse(&text, "config.toml");
            assert_eq!(parsed.is_ok(), valid, "{key} = {value}");
        }
    }
}

#[test]
fn text_that_is_not_toml_is_shown_where_it_breaks() {
    let text = "[proxy\nworkers = 3\n = 4\n";
    check(
        text,
        &[
            (1, 7, "this is not TOML: unclosed table"),
            (3, 2, "this is not TOML: "),
        ],
    );
    check(
        "a = 1\na = 2\n",
        &[(2, 1, "this is not TOML: duplicate key")],
    );
}

#[test]
fn what_is_wrong_about_sentinels_is_told_at_its_place() {
    let beside_shard = |lines: &str| format!("{MINIMAL}{lines}\n");
    let text = beside_shard(
        "sentinels = [\"s\", \"s:0\", \"s:1\", \"S:1\"]\nsentinel_master = \"my master\"\n\
         sentinel_username = \"u\"",
    );
    let told = Config::parse(&text, "test.toml").unwrap_err();
    let told: Vec<&str> = told
        .problems()
        .iter()
        .map(|one| one.message.as_str())
        .collect();
    for (part, message) in [
        ("the Sentinel \"s\" is no address", told[0]),
        ("a Sentinel needs its true port", told[1]),
        ("it is there twice", told[2]),
        ("`sentinel_master` is no name of a master", told[3]),
        ("`sentinel_username` has no `sentinel_password`", told[4]),
    ] {
        assert!(message.contains(part), "{part} is not in {told:#?}");
    }
    for (lines, part) in [
        (
            "sentinels = [\"s:1\"]",
            "`sentinels` has no `sentinel_master` beside it",
        ),
        (
            "sentinel_master = \"m\"",
            "`sentinel_master` has no `sentinels` beside it",
        ),
        (
            "sentinel_password = \"p\"",
            "`sentinel_password` has no `sentinels` beside it",
        ),
        (
            "promote_on_failure = true\nsentinels = [\"s:1\"]\nsentinel_master = \"m\"",
            "`promote_on_failure` stands beside `sentinels`",
        ),
        (
            "sentinels = []\nsentinel_master = \"m\"",
            "`sentinels` is empty",
        ),
    ] {
        let told = Config::parse(&beside_shard(lines), "test.toml").unwrap_err();
        assert_eq!(told.problems().len(), 1, "{told}");
        assert!(told.to_string().contains(part), "{told}");
    }
    let too_many: Vec<String> = (1..=17).map(|port| format!("\"s:{port}\"")).collect();
    let lines = |count: usize| {
        let sentinels = too_many[..count].join(", ");
        beside_shard(&format!(
            "sentinels = [{sentinels}]\nsentinel_master = \"m\""
        ))
    };
    assert_eq!(
        parse(&lines(16)).shards[0]
            .sentinel
            .as_ref()
            .unwrap()
            .nodes
            .len(),
        16
    );
    let told = Config::parse(&lines(17), "test.toml").unwrap_err();
    assert!(
        told.to_string().contains("more than 16 Sentinels"),
        "{told}"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_how_to_name_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.toml");

    let errors = Config::load(&missing).expect_err("there is no such file");

    assert!(matches!(errors, ConfigErrors::Unreadable { .. }));
    assert!(
        errors
            .to_string()
            .ends_with("(name another one with --config)"),
        "{errors}"
    );
    let large = dir.path().join("large.toml");
    std::fs::write(&large, "#".repeat(1024 * 1024 + 1)).expect("it is written");
    assert!(matches!(
        Config::load(&large),
        Err(ConfigErrors::TooLarge { .. })
    ));
}

#[test]
fn odd_characters_do_not_disturb_the_column() {
    let text = minimal_with("[proxy]\n\"schlüssel\" = 1\nlog_format = \"ä\u{7}\"");
    let errors = Config::parse(&text, "config.toml").expect_err("a control character");
    assert!(errors.to_string().contains("config.toml:3:"), "{errors}");

    check(
        &minimal_with("[proxy]\nstate_dir = \"ä\"\n\"ö\" = 1"),
        &[(3, 1, "there is no key `ö`")],
    );
    check(
        &MINIMAL.replace("\"main\"", "\"größe\""),
        &[(6, 8, "the shard name \"größe\" cannot")],
    );
}
