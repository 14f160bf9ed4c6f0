//! The keys of a shard that tell of the Sentinels which watch it.

use super::address::Address;
use super::read::{self, Outside, Section};
use super::secret::{Secret, SecretKeys, read_secret};

/// More Sentinels than anybody lets watch one master.
const SENTINELS_MAX: usize = 16;

const PASSWORD: SecretKeys = SecretKeys {
    literal: "sentinel_password",
    file: "sentinel_password_file",
    env: "sentinel_password_env",
};

/// The Sentinels of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct SentinelConfig {
    /// `host:port` of every one of them.
    pub nodes: Vec<String>,
    /// What they call the shard.
    pub master: String,
    /// Who the proxy is to them; `None` when they know only a password, or none at all.
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// Reads them; `None` when the shard has none, or something is wrong with them.
pub fn read_sentinels(s: &mut Section<'_, '_>, outside: Outside) -> Option<SentinelConfig> {
    let nodes = s.texts("sentinels", "[\"127.0.0.1:26379\"]");
    if let Some(extra) = nodes.get(SENTINELS_MAX) {
        let message =
            format!("this shard has more than {SENTINELS_MAX} Sentinels: remove the rest");
        s.report(extra.span.clone(), message);
    }
    for (at, node) in nodes.iter().enumerate() {
        let same = |other: &read::Found<String>| other.value.eq_ignore_ascii_case(&node.value);
        let fault = match Address::parse(&node.value) {
            Ok(Address { port: 0, .. }) => "a Sentinel needs its true port, not 0".to_owned(),
            Ok(_) if nodes.iter().take(at).any(same) => "it is there twice".to_owned(),
            Ok(_) => continue,
            Err(fault) => fault.to_string(),
        };
        let given = read::excerpt_of(&node.value);
        let message = format!("the Sentinel \"{given}\" is no address: {fault}");
        s.report(node.span.clone(), message);
    }
    let master = s.text("sentinel_master", None);
    let username = s.text("sentinel_username", None);
    let password = read_secret(s, PASSWORD, outside);
    let master = match (master, s.is_written("sentinels")) {
        (Some(master), true) => {
            let word =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if master.value.is_empty() || !master.value.bytes().all(word) {
                let advice = "`sentinel_master` is no name of a master: Sentinel takes letters, \
                              digits, dashes, underscores and dots";
                s.report(master.span.clone(), advice.to_owned());
            }
            Some(master.value)
        }
        (None, true) => {
            let advice = "`sentinels` has no `sentinel_master` beside it: add the name that they \
                          call this shard by";
            s.report_at("sentinels", advice.to_owned());
            None
        }
        (_, false) => {
            let keys = ["sentinel_master", "sentinel_username"];
            for key in keys.into_iter().chain(PASSWORD.all()) {
                let advice = format!("`{key}` has no `sentinels` beside it: add them");
                s.report_at(key, advice);
            }
            None
        }
    };
    if let (Some(username), true) = (&username, password.is_absent()) {
        let advice = "`sentinel_username` has no `sentinel_password` beside it: add one or remove \
                      the user name";
        s.report(username.span.clone(), advice.to_owned());
    }
    Some(SentinelConfig {
        nodes: nodes.into_iter().map(|node| node.value).collect(),
        master: master?,
        username: username.map(|username| username.value),
        password: password.secret(),
    })
}
