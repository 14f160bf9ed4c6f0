//! `CLIENT LIST` and `CLIENT INFO`: the server's lines, told as if its clients were connected
//! directly.
//!
//! A session with a connection of its own has the server's own line for it, with the fields that
//! are about the connection replaced. A session on lanes has no line there; it gets one with the
//! fields of the caller's, in the same order, filled as for a client that has nothing under way.
//!
//! **Invariant:** lines of connections that are not of the proxy's clients are left out: their
//! ids would be taken for the proxy's.

use std::collections::HashMap;

use bytes::Bytes;

use super::registry::{Entry, by_upstream};
use crate::resp::scan::args;

/// Which sessions a `CLIENT LIST` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Those of type `normal`, which is what sessions on lanes are.
    Normal,
    Ids(Vec<u64>),
    /// Of a type other than `normal`: they have connections of their own.
    Own,
}

impl Selection {
    pub fn of(request: &[u8]) -> Self {
        let words: Vec<&[u8]> = args(request).skip(2).collect();
        match words.as_slice() {
            [] => Self::All,
            [option, kind] if option.eq_ignore_ascii_case(b"type") => {
                if kind.eq_ignore_ascii_case(b"normal") {
                    Self::Normal
                } else {
                    Self::Own
                }
            }
            [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
                // An id that is none is for the server to complain of.
                let ids: Option<Vec<u64>> = ids.iter().map(|id| number(id)).collect();
                ids.map_or(Self::All, Self::Ids)
            }
            _ => Self::Own,
        }
    }
}

/// The reply to `CLIENT LIST` that a client of the proxy gets for the server's.
pub fn list(reply: &[u8], entries: &[Entry], epoch: u64, selection: &Selection) -> Option<Bytes> {
    let (form, text) = text_of(reply)?;
    let lines: Vec<Line> = text.lines().map(Line::read).collect();
    let own = by_upstream(entries, epoch);
    let found: HashMap<u64, &Line> = lines
        .iter()
        .filter_map(|line| Some((own.get(line.get("addr")?)?.presence.id, line)))
        .collect();
    let redirections = redirections(&lines, &own);
    let template = lines.first();
    // A session with a connection of its own that the server left out is of another type.
    let has_own = |entry: &Entry| {
        let upstream = entry.presence.upstream();
        upstream.is_some_and(|upstream| upstream.epoch == epoch)
    };
    let may_be_told = |entry: &Entry| match selection {
        Selection::All | Selection::Ids(_) => true,
        Selection::Normal => !has_own(entry),
        Selection::Own => false,
    };
    let mut listed = String::new();
    for entry in entries {
        let id = entry.presence.id;
        if let Selection::Ids(ids) = selection
            && !ids.contains(&id)
        {
            continue;
        }
        match (found.get(&id), template) {
            (Some(line), _) => {
                let redir = line
                    .number("redir")
                    .map(|to| *redirections.get(&to).unwrap_or(&to));
                line.write(&mut listed, |field, value| {
                    own_field(field, entry)
                        .or_else(|| (field == "redir").then(|| shown(redir)))
                        .unwrap_or_else(|| value.to_owned())
                });
            }
            (None, Some(template)) if may_be_told(entry) => {
                template.write(&mut listed, |field, value| {
                    own_field(field, entry)
                        .or_else(|| quiet_field(field, entry))
                        .unwrap_or_else(|| value.to_owned())
                });
            }
            (None, _) => {}
        }
    }
    Some(form.encode(&listed))
}

/// The reply to `CLIENT INFO`; `redirect` is where the session's invalidations go.
pub fn info(reply: &[u8], entry: &Entry, redirect: Option<u64>) -> Option<Bytes> {
    let (form, text) = text_of(reply)?;
    let line = Line::read(text.trim_end_matches('\n'));
    let mut told = String::new();
    line.write(&mut told, |field, value| {
        let redirected = field == "redir" && line.number("redir").is_some_and(|to| to > 0);
        own_field(field, entry)
            .or_else(|| {
                redirected
                    .then(|| redirect.map(|to| to.to_string()))
                    .flatten()
            })
            .unwrap_or_else(|| value.to_owned())
    });
    Some(form.encode(&told))
}

/// The server's id for the connection whose end on our side is `addr`.
pub fn id_at(reply: &[u8], addr: &str) -> Option<u64> {
    let (_, text) = text_of(reply)?;
    let mut lines = text.lines().map(Line::read);
    let line = lines.find(|line| line.get("addr") == Some(addr))?;
    u64::try_from(line.number("id")?).ok()
}

/// The server's `INFO`, with as many clients as the proxy has. The reply is returned as it is where
/// that is not told.
pub fn server_info(reply: &Bytes, clients: usize) -> Bytes {
    const FIELD: &str = "connected_clients:";
    let Some((form, text)) = text_of(reply) else {
        return reply.clone();
    };
    let Some(at) = text.find(FIELD).map(|at| at + FIELD.len()) else {
        return reply.clone();
    };
    let (before, rest) = text.split_at(at);
    let after = rest.trim_start_matches(|byte: char| byte.is_ascii_digit());
    form.encode(&format!("{before}{clients}{after}"))
}

/// Server ids of the sessions' own connections, and the proxy's.
fn redirections(lines: &[Line<'_>], own: &HashMap<String, &Entry>) -> HashMap<i64, i64> {
    let both = lines.iter().filter_map(|line| {
        let id = own.get(line.get("addr")?)?.presence.id;
        Some((line.number("id")?, i64::try_from(id).ok()?))
    });
    both.collect()
}

/// A field that is about the client's connection to the proxy.
fn own_field(field: &str, entry: &Entry) -> Option<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(match field {
        "id" => entry.presence.id.to_string(),
        "addr" => entry.addr.to_string(),
        "laddr" => entry.laddr.to_string(),
        "fd" => entry.fd.to_string(),
        "name" => text(&entry.about.name),
        "age" => entry.presence.age_s().to_string(),
        "lib-name" => text(&entry.about.lib_name),
        "lib-ver" => text(&entry.about.lib_ver),
        _ => return None,
    })
}

/// A field of a client that has nothing under way; `None` where the caller's is as good as any.
fn quiet_field(field: &str, entry: &Entry) -> Option<String> {
    Some(match field {
        "idle" => entry.presence.idle_s().to_string(),
        "flags" => "N".to_owned(),
        "db" => entry.about.db.to_string(),
        "resp" => entry.about.resp.to_string(),
        "user" => String::from_utf8_lossy(&entry.about.user).into_owned(),
        "cmd" => entry.presence.command(),
        "multi" | "redir" => "-1".to_owned(),
        "events" => "r".to_owned(),
        "rbs" => "1024".to_owned(),
        "sub" | "psub" | "ssub" | "watch" | "qbuf" | "qbuf-free" | "argv-mem" | "multi-mem"
        | "rbp" | "obl" | "oll" | "omem" => "0".to_owned(),
        _ => return None,
    })
}

fn shown(redir: Option<i64>) -> String {
    redir.unwrap_or(-1).to_string()
}

/// One line: fields and their values, in order.
struct Line<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Line<'t> {
    fn read(line: &'t str) -> Self {
        let fields = line.split(' ').filter_map(|field| field.split_once('='));
        Self(fields.collect())
    }

    fn get(&self, name: &str) -> Option<&'t str> {
        let found = self.0.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| *value)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    fn write(&self, out: &mut String, value: impl Fn(&str, &str) -> String) {
        for (at, (field, old)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(' ');
            }
            out.push_str(field);
            out.push('=');
            out.push_str(&value(field, old));
        }
        out.push('\n');
    }
}

/// How a text was sent: a bulk string, or RESP3's string that says what it contains.
#[derive(Debug, Clone, Copy)]
enum Form {
    Bulk,
    Verbatim,
}

impl Form {
    fn encode(self, text: &str) -> Bytes {
        match self {
            Self::Bulk => format!("${}\r\n{text}\r\n", text.len()).into(),
            Self::Verbatim => format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into(),
        }
    }
}

fn text_of(reply: &[u8]) -> Option<(Form, &str)> {
    let text = std::str::from_utf8(reply).ok()?;
    let (header, body) = text.split_once("\r\n")?;
    let body = body.strip_suffix("\r\n")?;
    match header.as_bytes().first()? {
        b'$' => Some((Form::Bulk, body)),
        b'=' => Some((Form::Verbatim, body.strip_prefix("txt:")?)),
        _ => None,
    }
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word)
        .ok()?
        .parse()
        .ok()
        .filter(|id| *id > 0)
}
