//! Passwords and tokens: the type that hides them, and the three places they may stand in.
//!
//! `password = "..."` is the secret itself, `password_file` names a file that holds it and
//! `password_env` a variable of the environment; at most one of the three may be there.
//!
//! **Invariant:** no message repeats what stands behind any of the three keys: a secret that was
//! written behind the wrong one is as secret as in its right place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use super::read::{Found, Outside, Section};

/// A longer secret is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A password or token: readable only on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The secret itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The three keys of one secret.
#[derive(Clone, Copy, Debug)]
pub struct SecretKeys {
    pub literal: &'static str,
    pub file: &'static str,
    pub env: &'static str,
}

impl SecretKeys {
    pub fn all(self) -> [&'static str; 3] {
        [self.literal, self.file, self.env]
    }
}

/// Whether a secret is there, and what it is where it was to be read.
#[derive(Clone, Debug)]
pub enum Given {
    Absent,
    /// Written wrongly, which has been reported; or outside of a file that is read alone.
    Unread,
    Here(Found<Secret>),
}

impl Given {
    pub fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }

    pub fn secret(self) -> Option<Secret> {
        match self {
            Given::Here(found) => Some(found.value),
            Given::Absent | Given::Unread => None,
        }
    }
}

/// Reads a secret from the one place where it stands.
pub fn read_secret(section: &mut Section<'_, '_>, keys: SecretKeys, outside: Outside) -> Given {
    let written = keys.all().map(|key| (key, section.is_written(key)));
    let literal = section.text(keys.literal, None);
    let file = section.text(keys.file, None);
    let env = section.text(keys.env, None);
    let mut written = written.into_iter().filter(|(_, there)| *there);
    let Some((first, _)) = written.next() else {
        return Given::Absent;
    };
    if let Some((second, _)) = written.next() {
        let message = format!("`{second}` says what `{first}` says already: keep one of them");
        section.report_at(second, message);
        return Given::Unread;
    }
    if let Some(found) = literal {
        let (value, span) = (Secret::new(found.value), found.span);
        return Given::Here(Found { value, span });
    }
    let (span, read) = match (outside, file, env) {
        (Outside::Read, Some(found), _) => (found.span, from_file(&found.value, keys.file)),
        (Outside::Read, None, Some(found)) => (found.span, from_env(&found.value, keys.env)),
        _ => return Given::Unread,
    };
    match read {
        Ok(value) => Given::Here(Found { value, span }),
        Err(message) => {
            section.report(span, message);
            Given::Unread
        }
    }
}

fn from_file(path: &str, key: &str) -> Result<Secret, String> {
    let unreadable =
        |error: io::Error| format!("the file that `{key}` names cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        let most = format!("more than {SECRET_BYTES_MAX} bytes");
        return Err(format!(
            "the file that `{key}` names has {most}: it is no secret"
        ));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| format!("the file that `{key}` names is no text: write UTF-8"))?;
    // Editors and `echo` end a file with a newline that nobody means.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(format!(
            "the file that `{key}` names is empty: write the secret into it"
        ));
    }
    Ok(Secret::new(line))
}

fn from_env(name: &str, key: &str) -> Result<Secret, String> {
    // The standard library takes a name with one of these for a mistake of the program.
    let is_name = !name.contains(['=', '\0']);
    match is_name.then(|| std::env::var(name)) {
        Some(Ok(value)) if !value.is_empty() => Ok(Secret::new(value)),
        Some(Err(std::env::VarError::NotUnicode(_))) => Err(format!(
            "the variable that `{key}` names is no text: set it to UTF-8"
        )),
        _ => Err(format!(
            "the variable that `{key}` names is not set here: write the name of one, without $, \
             and set it where pointsman is started"
        )),
    }
}
