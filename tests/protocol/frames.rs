//! Generators of requests and replies, sound and hostile.

use proptest::prelude::*;

use super::tokens::TOKENS;

/// Up to six frames behind each other.
pub fn pipeline(frame: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(frame, 1..6)
}

/// A multibulk request of one to ten arguments.
pub fn multibulk() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(bytes(), 1..10).prop_map(|arguments| {
        let bulks: Vec<Vec<u8>> = arguments.iter().map(|bytes| bulk(b'$', bytes)).collect();
        aggregate(b'*', arguments.len(), &bulks)
    })
}

/// An inline request, or a line that asks for nothing.
pub fn inline_line() -> impl Strategy<Value = Vec<u8>> {
    ("[ -)+-~]{0,20}", prop::bool::ANY)
        .prop_map(|(line, cr)| format!("{line}{}", if cr { "\r\n" } else { "\n" }).into_bytes())
}

/// A reply of RESP2, up to four levels deep.
pub fn resp2_value() -> impl Strategy<Value = Vec<u8>> {
    resp2_scalar().prop_recursive(4, 24, 5, |inner| {
        prop::collection::vec(inner, 0..5)
            .prop_map(|elements| aggregate(b'*', elements.len(), &elements))
    })
}

/// A reply of RESP3: a value, with an attribute in front, or a push.
pub fn resp3_reply() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => resp3_value(),
        1 => (map(b'|'), resp3_value()).prop_map(|(attribute, value)| {
            // The oracle has no place for the attribute of a null.
            if value == b"_\r\n" { value } else { [attribute, value].concat() }
        }),
        1 => prop::collection::vec(resp3_value(), 0..4).prop_map(|elements| {
            let mut all = vec![bulk(b'$', b"pubsub"), bulk(b'$', b"message")];
            all.extend(elements);
            aggregate(b'>', all.len(), &all)
        }),
    ]
}

/// Bytes that look like the protocol, from afar.
pub fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::sample::select(TOKENS).prop_map(|token| token.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat())
}

fn resp2_scalar() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        line("[ -~]{0,40}").prop_map(|text| [b"+".to_vec(), text].concat()),
        line("ERR [ -~]{0,40}").prop_map(|text| [b"-".to_vec(), text].concat()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        bytes().prop_map(|bytes| bulk(b'$', &bytes)),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
    ]
}

fn resp3_value() -> impl Strategy<Value = Vec<u8>> {
    resp3_scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|elements| aggregate(
                b'*',
                elements.len(),
                &elements
            )),
            prop::collection::vec(resp3_scalar(), 0..4).prop_map(|elements| aggregate(
                b'~',
                elements.len(),
                &elements
            )),
            map(b'%'),
        ]
    })
}

fn resp3_scalar() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        line("[ -~]{0,40}").prop_map(|text| [b"+".to_vec(), text].concat()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        bytes().prop_map(|bytes| bulk(b'$', &bytes)),
        "ERR [ -~]{0,20}".prop_map(|text| bulk(b'!', text.as_bytes())),
        "[ -~]{0,20}".prop_map(|text| bulk(b'=', format!("txt:{text}").as_bytes())),
        prop::sample::select(vec![
            "_\r\n",
            "#t\r\n",
            "#f\r\n",
            ",1.5\r\n",
            ",inf\r\n",
            ",-inf\r\n"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        "-?[1-9][0-9]{20,40}".prop_map(|number| format!("({number}\r\n").into_bytes()),
    ]
}

/// A map or an attribute. Keys are plain and different, because the oracle keeps them in a table.
fn map(kind: u8) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(resp3_scalar(), 0..4).prop_map(move |values| {
        let entries: Vec<Vec<u8>> = values
            .iter()
            .enumerate()
            .map(|(i, value)| [format!("+key{i}\r\n").as_bytes(), value].concat())
            .collect();
        aggregate(kind, entries.len(), &entries)
    })
}

fn line(pattern: &'static str) -> impl Strategy<Value = Vec<u8>> {
    pattern.prop_map(|text| format!("{text}\r\n").into_bytes())
}

/// Contents of a bulk: mostly short, often with line ends inside.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(any::<u8>(), 90..110),
        1 => prop::collection::vec(prop::sample::select(&b"\r\n$*1"[..]), 0..12),
    ]
}

fn bulk(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{}{}\r\n", char::from(kind), bytes.len());
    [header.as_bytes(), bytes, b"\r\n"].concat()
}

fn aggregate(kind: u8, count: usize, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = format!("{}{count}\r\n", char::from(kind)).into_bytes();
    frame.extend(elements.concat());
    frame
}
