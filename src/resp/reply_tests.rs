use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Value>, ReplyError> {
    let mut decoder = ReplyDecoder::default();
    decoder.buffer().extend_from_slice(bytes);
    decoder.next_value()
}

fn bulk(text: &'static str) -> Value {
    Value::Bulk(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_reply_is_handed_out_when_its_last_byte_has_arrived_and_not_before() {
    let frame = b"*3\r\n$5\r\nslave\r\n:-1\r\n*2\r\n$-1\r\n-ERR no\r\n";
    for cut in 0..frame.len() {
        assert_eq!(decode(&frame[..cut]), Ok(None), "cut at {cut}");
    }
    let inner = Value::Array(vec![Value::Null, Value::Error("ERR no".into())]);
    let whole = Value::Array(vec![bulk("slave"), Value::Integer(-1), inner]);
    assert_eq!(decode(frame), Ok(Some(whole)));
}

#[test]
fn two_replies_in_one_read_are_handed_out_one_by_one() {
    let mut decoder = ReplyDecoder::default();
    decoder.buffer().extend_from_slice(b"+OK\r\n*0\r\n");
    assert_eq!(
        decoder.next_value().unwrap().map(|value| value.is_ok()),
        Some(true)
    );
    assert_eq!(decoder.next_value(), Ok(Some(Value::Array(vec![]))));
    assert_eq!(decoder.next_value(), Ok(None));
    assert!(decoder.is_empty());
}

#[test]
fn nesting_past_the_limit_is_refused_before_it_is_decoded() {
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert!(matches!(decode(&nested(32)), Ok(Some(_))));
    assert_eq!(
        decode(&nested(33)),
        Err(ReplyError::Malformed(scan::ReplyError::Nesting))
    );
}

#[test]
fn a_reply_is_read_at_the_size_limit_and_refused_one_byte_past_it() {
    let frame = |len: usize| {
        let header = format!("${len}\r\n");
        [header.as_bytes(), &b"x".repeat(len), b"\r\n"].concat()
    };
    let around = "$16777000\r\n\r\n".len();
    assert!(matches!(
        decode(&frame(REPLY_BYTES_MAX - around)),
        Ok(Some(_))
    ));
    let past = frame(REPLY_BYTES_MAX - around + 1);
    assert_eq!(decode(&past), Err(ReplyError::TooLong));
    let mut part = b"$90000000\r\n".to_vec();
    part.resize(REPLY_BYTES_MAX + 1, b'x');
    assert_eq!(decode(&part), Err(ReplyError::TooLong));
}

#[test]
fn bytes_of_another_protocol_are_refused() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
        b"$abc\r\n",
        b"*-7\r\n",
    ] {
        assert!(
            matches!(decode(bytes), Err(ReplyError::Malformed(_))),
            "{bytes:?}"
        );
    }
    assert_eq!(decode(b"%0\r\n"), Err(ReplyError::Undecodable));
}

#[test]
fn role_is_read_from_integers_and_from_text() {
    let role = |bytes: &[u8]| RoleReply::of(&decode(bytes).unwrap().unwrap());
    let redis = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:7\r\n$9\r\nconnected\r\n:-1\r\n";
    let kvrocks = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n$1\r\n7\r\n$9\r\nconnected\r\n$2\r\n42\r\n";
    let replica = |offset| {
        let (host, state) = ("h".to_owned(), "connected".to_owned());
        Some(RoleReply::Replica {
            host,
            port: 7,
            state,
            offset,
        })
    };
    assert_eq!(role(redis), replica(None));
    assert_eq!(role(kvrocks), replica(Some(42)));
    let master = b"*2\r\n$6\r\nmaster\r\n$2\r\n15\r\n";
    assert_eq!(role(master), Some(RoleReply::Master { offset: Some(15) }));
    assert_eq!(role(b"*1\r\n$3\r\nfoo\r\n"), None);
    assert_eq!(role(b"-NOAUTH Authentication required.\r\n"), None);
}

#[test]
fn info_fields_client_lines_and_config_pairs_are_found() {
    let info = Info::of(&bulk(
        "# Replication\r\nrole:master\r\nslave0:ip=1,port=2\r\nslaves:9",
    ));
    let info = info.unwrap();
    assert!(info.is("role", "master"));
    assert_eq!(info.number::<u64>("slaves"), Some(9));
    assert_eq!(info.numbered("slave").collect::<Vec<_>>(), ["ip=1,port=2"]);

    let lines = client_lines(&bulk("id=3 addr=1.2.3.4:5 name= flags=N cmd=get\n\n")).unwrap();
    let (addr, flags, cmd) = ("1.2.3.4:5".into(), "N".into(), "get".into());
    assert_eq!(
        lines,
        [ClientLine {
            id: 3,
            addr,
            flags,
            cmd,
            ..ClientLine::default()
        }]
    );

    let map = config_map(&Value::Array(vec![bulk("maxclients"), bulk("10")])).unwrap();
    assert_eq!(map.get("maxclients").map(String::as_str), Some("10"));
}
