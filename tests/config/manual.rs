//! config.toml is the manual: it works as it is, and is complete and true.

use pointsman::config::{self, Config};

use crate::parse;

/// config.toml with every option switched on that can stand beside the others.
fn manual_switched_on() -> String {
    let elsewhere = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        !key.ends_with("_file") && !key.ends_with("_env") && key != "upstream_tls_server_name"
    };
    let manual = manual_uncommented();
    manual
        .lines()
        .filter(elsewhere)
        .collect::<Vec<_>>()
        .join("\n")
}

/// config.toml with every option in it.
fn manual_uncommented() -> String {
    let is_option = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let lines = include_str!("../../config.toml").lines().map(|line| {
        line.strip_prefix("# ")
            .filter(|option| is_option(option))
            .unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_manual_is_a_config_that_works_as_it_is() {
    let config = Config::load("config.toml").unwrap_or_else(|errors| panic!("{errors}"));

    assert_eq!(config.admin.listen, "127.0.0.1:9400");
    assert_eq!(config.shards.len(), 1);
    assert_eq!(config.shards[0].name, "main");
    assert_eq!(config.shards[0].listen, "127.0.0.1:6380");
    assert_eq!(config.shards[0].nodes, ["127.0.0.1:6379", "127.0.0.1:6378"]);
}

#[test]
fn the_manual_shows_every_key_with_its_true_default() {
    let manual = manual_uncommented();
    let mut section = "";
    let mut shown = Vec::new();
    for line in manual.lines() {
        if line.starts_with('[') {
            section = line;
        } else if let (false, Some((key, value))) = (line.starts_with('#'), line.split_once(" = "))
        {
            shown.push((section, key, value));
        }
    }

    for key in config::keys() {
        let value = shown
            .iter()
            .find(|(section, name, _)| (*section, *name) == (key.section, key.name));
        let (_, _, value) = value.unwrap_or_else(|| panic!("{} is not in the manual", key.name));
        if let Some(default) = &key.default {
            assert_eq!(value, default, "the default of {}", key.name);
        }
    }
    assert_eq!(
        shown.len(),
        config::keys().len(),
        "a key is there twice, or is none"
    );
}

#[test]
fn the_manual_with_everything_switched_on_says_the_same_as_its_defaults() {
    let mut all = parse(&manual_switched_on());

    assert_eq!(
        all.switchover.fence_address.take().as_deref(),
        Some("10.0.0.5")
    );
    assert_eq!(all.shards[0].username.take().as_deref(), Some("pointsman"));
    assert!(all.shards[0].password.take().is_some());
    let sentinel = all.shards[0].sentinel.take().expect("Sentinels");
    assert_eq!(sentinel.nodes.len(), 3);
    assert_eq!(sentinel.master, "mymaster");
    assert_eq!(sentinel.username.as_deref(), Some("pointsman"));
    assert!(sentinel.password.is_some());
    assert!(all.admin.token.take().is_some());
    assert_eq!(all, parse(include_str!("../../config.toml")));
}
