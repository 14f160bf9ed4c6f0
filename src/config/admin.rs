//! The `[admin]` section: where the operator's interface listens, and who may use it.
//!
//! **Invariant:** an address that other machines may reach has a token, or a line in the file that
//! says that it shall have none.

use super::address::Address;
use super::read::{Outside, Section};
use super::secret::{Given, Secret, SecretKeys, read_secret};
use super::shards::{self, ListenRead};

/// A shorter token can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

const TOKEN: SecretKeys = SecretKeys {
    literal: "token",
    file: "token_file",
    env: "token_env",
};

/// The section as far as it could be read.
pub struct AdminRead {
    pub listen: Option<ListenRead>,
    pub token: Option<Secret>,
    pub allow_remote_without_token: bool,
}

/// Reads it. `token_outside`: whether a token that stands elsewhere is fetched from there.
pub fn read_admin(mut section: Section<'_, '_>, token_outside: Outside) -> AdminRead {
    let s = &mut section;
    let listen = s.required_text("listen", "\"127.0.0.1:9400\"");
    let listen = listen.and_then(|found| shards::read_listen(s, found));
    let token = read_secret(s, TOKEN, token_outside);
    let allow_remote_without_token = s.flag("allow_remote_without_token", false);
    if let Some(listen) = &listen
        && token.is_absent()
        && !allow_remote_without_token
        && !is_loopback(&listen.address)
    {
        s.report(
            listen.span.clone(),
            "whoever reaches this address can move the master, and there is no token: set \
             `token`, `token_file` or `token_env`, or listen on 127.0.0.1, or write \
             allow_remote_without_token = true if something in front of it asks who it is"
                .to_owned(),
        );
    }
    if let Given::Here(found) = &token
        && let Some(fault) = token_fault(found.value.expose())
    {
        s.report(found.span.clone(), fault);
    }
    section.finish();
    AdminRead {
        listen,
        token: token.secret(),
        allow_remote_without_token,
    }
}

/// A token travels in a header of HTTP.
fn token_fault(token: &str) -> Option<String> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(
            "the admin token has a space or a special character: use ASCII letters, digits and \
             signs, as `openssl rand -hex 32` prints them"
                .to_owned(),
        );
    }
    (token.len() < TOKEN_CHARS_MIN).then(|| {
        format!(
            "the admin token has fewer than {TOKEN_CHARS_MIN} characters and can be guessed: make \
             one with `openssl rand -hex 32`"
        )
    })
}

/// Only addresses count, and the one name that stands for them everywhere.
fn is_loopback(address: &Address) -> bool {
    let ip = address.host.parse::<std::net::IpAddr>();
    ip.map_or_else(
        |_| address.host.eq_ignore_ascii_case("localhost"),
        |ip| ip.to_canonical().is_loopback(),
    )
}
