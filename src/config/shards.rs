//! The `[[shard]]` tables, and the rules across them and the rest of the file.
//!
//! **Invariant:** an address at which the proxy listens, a shard's name and a node stand in the
//! file once. A node in two shards would be switched over by two operations at once.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::address::Address;
use super::read::{self, Findings, Found, Outside, Section};
use super::secret::{Secret, SecretKeys, read_secret};
use super::sentinel::read_sentinels;
use super::tls::{self, ServerTls, UpstreamTls};
use super::{SentinelConfig, ShardConfig};

const SHARDS_MAX: usize = 1024;
const NODES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;

const PASSWORD: SecretKeys = SecretKeys {
    literal: "password",
    file: "password_file",
    env: "password_env",
};

/// A shard as far as it could be read, with the places that rules across shards point to.
pub struct ShardRead {
    name: Option<Found<String>>,
    listen: Option<ListenRead>,
    nodes: Vec<Found<String>>,
    username: Option<String>,
    password: Option<Secret>,
    tls: Option<ServerTls>,
    upstream_tls: Option<UpstreamTls>,
    sentinel: Option<SentinelConfig>,
    promote_after: Option<Duration>,
}

impl ShardRead {
    /// Only called for a file without problems, in which nothing required is missing.
    pub fn into_config(self) -> ShardConfig {
        ShardConfig {
            name: self.name.map(|found| found.value).unwrap_or_default(),
            listen: self.listen.map(|listen| listen.text).unwrap_or_default(),
            nodes: self.nodes.into_iter().map(|node| node.value).collect(),
            username: self.username,
            password: self.password,
            tls: self.tls,
            upstream_tls: self.upstream_tls,
            sentinel: self.sentinel,
            promote_after: self.promote_after,
        }
    }
}

/// Reads all of them.
pub fn read_shards(
    findings: &mut Findings<'_>,
    root: &DeTable<'_>,
    outside: Outside,
) -> Vec<ShardRead> {
    let Some(value) = root.get("shard") else {
        let advice = "there is no [[shard]]: add one with name, listen and nodes";
        findings.report_absent(advice.to_owned());
        return Vec::new();
    };
    let Some(array) = value.get_ref().as_array() else {
        let is = read::type_name(value.get_ref());
        findings.report(
            value.span(),
            format!("`shard` is {is}: head each shard with [[shard]], in double brackets"),
        );
        return Vec::new();
    };
    if array.is_empty() || array.len() > SHARDS_MAX {
        let message = format!(
            "the file has {} shards: configure from 1 to {SHARDS_MAX}",
            array.len()
        );
        findings.report(value.span(), message);
    }
    let mut shards = Vec::new();
    for entry in array.iter().take(SHARDS_MAX) {
        match entry.get_ref().as_table() {
            Some(table) => shards.push(read_shard(findings, table, entry.span(), outside)),
            None => {
                let is = read::type_name(entry.get_ref());
                findings.report(entry.span(), format!("a shard is {is}: write a table"));
            }
        }
    }
    shards
}

/// Reads one of them.
pub fn read_shard<'a>(
    findings: &'a mut Findings<'_>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    outside: Outside,
) -> ShardRead {
    let mut section = Section::new(findings, "[[shard]]", Some(table), span);
    let s = &mut section;
    let name = s.required_text("name", "\"main\"");
    if let Some(found) = name.as_ref().filter(|found| !is_name(&found.value)) {
        let given = read::excerpt_of(&found.value);
        let message = format!(
            "the shard name \"{given}\" cannot stand in a URL: use up to {NAME_BYTES_MAX} letters, \
             digits, dashes, underscores and dots, the first one a letter or digit"
        );
        s.report(found.span.clone(), message);
    }
    let listen = s.required_text("listen", "\"127.0.0.1:6380\"");
    let listen = listen.and_then(|found| read_listen(s, found));
    let nodes = s.required_texts("nodes", "[\"127.0.0.1:6379\", \"127.0.0.1:6378\"]");
    if let Some(extra) = nodes.get(NODES_MAX) {
        let message = format!("this shard has more than {NODES_MAX} nodes: remove the rest");
        s.report(extra.span.clone(), message);
    }
    for node in &nodes {
        let fault = match Address::parse(&node.value) {
            Ok(Address { port: 0, .. }) => "a node needs its true port, not 0".to_owned(),
            Ok(_) => continue,
            Err(fault) => fault.to_string(),
        };
        let given = read::excerpt_of(&node.value);
        s.report(
            node.span.clone(),
            format!("the node \"{given}\" is no address: {fault}"),
        );
    }
    let username = s.text("username", None);
    let password = read_secret(s, PASSWORD, outside);
    if let (Some(username), true) = (&username, password.is_absent()) {
        let advice = "`username` has no `password` beside it: add one or remove the user name";
        s.report(username.span.clone(), advice.to_owned());
    }
    let tls = tls::read_server(s, outside);
    let upstream_tls = tls::read_upstream(s, outside);
    let sentinel = read_sentinels(s, outside);
    let promote_after = read_promotion(s);
    section.finish();
    ShardRead {
        name,
        listen,
        nodes,
        username: username.map(|found| found.value),
        password: password.secret(),
        tls,
        upstream_tls,
        sentinel,
        promote_after,
    }
}

/// Whether the proxy replaces a dead master by itself, and when.
fn read_promotion(s: &mut Section<'_, '_>) -> Option<Duration> {
    let promotes = s.flag("promote_on_failure", false);
    let down_after_ms = s.number("down_after_ms", 5000, 500..=3_600_000);
    if promotes && s.is_written("sentinels") {
        let advice = "`promote_on_failure` stands beside `sentinels`, which replace a dead master \
                      themselves: remove one of the two";
        s.report_at("promote_on_failure", advice.to_owned());
    }
    promotes.then_some(Duration::from_millis(down_after_ms))
}

/// A listen address that could be read.
pub struct ListenRead {
    pub text: String,
    pub address: Address,
    pub span: Range<usize>,
}

/// Checks a listen address; port 0 lets the kernel choose.
pub fn read_listen(section: &mut Section<'_, '_>, found: Found<String>) -> Option<ListenRead> {
    match Address::parse(&found.value) {
        Ok(address) => Some(ListenRead {
            text: found.value,
            address,
            span: found.span,
        }),
        Err(fault) => {
            let given = read::excerpt_of(&found.value);
            section.report(found.span, format!("`listen` is \"{given}\": {fault}"));
            None
        }
    }
}

/// The rules that more than one table has a part in.
pub fn check_across(findings: &mut Findings<'_>, admin: Option<&ListenRead>, shards: &[ShardRead]) {
    let mut names: Vec<&str> = Vec::new();
    let mut listens: Vec<&ListenRead> = admin.into_iter().collect();
    let mut nodes: Vec<&str> = Vec::new();
    for shard in shards {
        if let Some(name) = &shard.name {
            if names.contains(&name.value.as_str()) {
                let given = read::excerpt_of(&name.value);
                let message = format!("another shard is called \"{given}\": choose another name");
                findings.report(name.span.clone(), message);
            }
            names.push(&name.value);
        }
        if let Some(listen) = &shard.listen {
            let rival = listens
                .iter()
                .find(|other| other.address.collides_with(&listen.address));
            if let Some(rival) = rival {
                let message = format!(
                    "the proxy already listens at \"{}\": choose another port",
                    rival.text
                );
                findings.report(listen.span.clone(), message);
            }
            listens.push(listen);
        }
        for node in &shard.nodes {
            if nodes
                .iter()
                .any(|other| other.eq_ignore_ascii_case(&node.value))
            {
                let given = read::excerpt_of(&node.value);
                let message = format!("the node \"{given}\" is there twice: remove one of them");
                findings.report(node.span.clone(), message);
            }
            nodes.push(&node.value);
        }
    }
    for node in shards.iter().flat_map(|shard| &shard.nodes) {
        let Ok(address) = Address::parse(&node.value) else {
            continue;
        };
        if listens
            .iter()
            .any(|listen| listen.address == address && address.port != 0)
        {
            let message = format!(
                "the proxy itself listens at \"{}\": name the address of the server instead",
                read::excerpt_of(&node.value)
            );
            findings.report(node.span.clone(), message);
        }
    }
}

/// Whether a shard can be called so: the name stands in URLs, metric labels and channel names.
fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= NAME_BYTES_MAX
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(word)
}
