//! Claims about the admin interface, over a real socket and with a scripted control behind it.

mod scripted;

use std::io::{Read, Write};

use pointsman::switchover::report::{Outcome, Report};
use pointsman::switchover::view::{AbortAnswer, OperationView, ShardStatus, StartError};
use scripted::{A, B, ID, Served};

const SWITCHOVER: &str = "/v1/shards/main/switchover";

fn order() -> String {
    format!("{{\"to\": \"{B}\"}}")
}

/// The text of an error answer.
fn error(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).expect("errors are JSON");
    body["error"]
        .as_str()
        .expect("errors have a text")
        .to_owned()
}

#[test]
fn health_is_always_well_and_readiness_needs_a_master() {
    let served = Served::start();

    assert_eq!(served.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(served.get("/readyz"), (200, "ok\n".to_owned()));
    served.control.change(|script| script.master = None);
    assert_eq!(served.get("/healthz").0, 200);
    assert_eq!(
        served.get("/readyz"),
        (503, "shard main has no master\n".to_owned())
    );
}

#[test]
fn shards_are_told_together_and_alone() {
    let served = Served::start();

    let (status, all) = served.get("/v1/shards");
    let all: serde_json::Value = serde_json::from_str(&all).expect("it is JSON");
    let (alone_status, alone) = served.get("/v1/shards/main");
    let alone: ShardStatus = serde_json::from_str(&alone).expect("it is a status");

    assert_eq!((status, alone_status), (200, 200));
    assert_eq!(
        all["shards"][0],
        serde_json::to_value(&alone).expect("it is JSON")
    );
    assert_eq!(alone.master.as_deref(), Some(A));
    assert_eq!(all["shards"][0]["nodes"][1]["role"], "replica");
}

#[test]
fn a_switchover_is_answered_when_it_is_over() {
    for (outcome, expected) in [
        (Outcome::Switched, 200),
        (Outcome::SwitchedWithLeak, 200),
        (Outcome::RolledBack, 200),
        (Outcome::Refused, 422),
        (Outcome::Unknown, 500),
    ] {
        let served = Served::start();
        served.control.change(|script| script.outcome = None);
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| served.post(SWITCHOVER, &order()));
            served.control.wait_for_an_order();
            assert!(!answer.is_finished(), "it is answered before it is over");
            served
                .control
                .change(|script| script.outcome = Some(outcome));

            let (status, body) = answer.join().expect("there is an answer");
            let report: Report = serde_json::from_str(&body).expect("it is a report");
            assert_eq!((status, report.outcome), (expected, outcome));
        });
    }
}

#[test]
fn an_order_reaches_the_control_as_it_was_written() {
    let served = Served::start();

    served.post(SWITCHOVER, &order());
    served.post(
        SWITCHOVER,
        &format!("{{\"to\": \"{A}\", \"dry_run\": true}}"),
    );

    let main = || "main".to_owned();
    let expected = [(main(), B.to_owned(), false), (main(), A.to_owned(), true)];
    assert_eq!(served.control.orders(), expected);
}

#[test]
fn an_order_that_is_not_waited_for_is_answered_with_its_id() {
    let served = Served::start();
    served.control.change(|script| script.outcome = None);

    let (status, body) = served.post(&format!("{SWITCHOVER}?wait=false"), &order());
    let (seen, view) = served.get(&format!("/v1/operations/{ID}"));
    let view: OperationView = serde_json::from_str(&view).expect("it is an operation");

    assert_eq!(
        (status, body.as_str()),
        (202, &*format!("{{\"id\":\"{ID}\"}}"))
    );
    assert_eq!(seen, 200);
    assert!(view.report.is_none());
    assert_eq!(view.phases.len(), 3);
}

#[test]
fn an_order_that_cannot_start_says_why() {
    let served = Served::start();
    let refused_with = |start| {
        served.control.change(|script| script.start = Err(start));
        served.post(SWITCHOVER, &order())
    };

    let (status, body) = refused_with(StartError::Busy { id: ID.to_owned() });
    assert_eq!(status, 409);
    assert!(error(&body).contains("is running on this shard"));
    assert!(body.contains(&format!("\"id\":\"{ID}\"")), "{body}");
    assert_eq!(refused_with(StartError::UnknownShard).0, 404);
    assert_eq!(refused_with(StartError::ShuttingDown).0, 503);
}

#[test]
fn bodies_that_are_no_order_are_refused_with_the_form_of_one() {
    let served = Served::start();

    for body in [
        "",
        "{",
        "[]",
        "{}",
        "{\"to\": 1}",
        "{\"to\": \"a:1\", \"force\": true}",
        "{\"to\": \"a:1\", \"dry_run\": \"yes\"}",
        "{\"to\": \"a:1\"} {}",
    ] {
        let (status, answer) = served.post(SWITCHOVER, body);
        assert_eq!(status, 400, "{body}");
        assert!(
            error(&answer).contains("send {\"to\": \"host:port\""),
            "{answer}"
        );
    }
    let (status, answer) = served.post(&format!("{SWITCHOVER}?wait=maybe"), &order());
    assert_eq!(
        (status, &*error(&answer)),
        (400, "the query may only be wait=true or wait=false")
    );
    assert!(
        served.control.orders().is_empty(),
        "none of them was an order"
    );
}

#[test]
fn a_body_has_a_limit_and_a_type() {
    let served = Served::start();
    let padded = |length: usize| {
        let order = order();
        let padding = " ".repeat(length - order.len());
        order + &padding
    };

    assert_eq!(served.post(SWITCHOVER, &padded(16 * 1024)).0, 200);
    assert_eq!(served.post(SWITCHOVER, &padded(16 * 1024 + 1)).0, 413);
    assert_eq!(
        served
            .post_with(SWITCHOVER, "content-type: text/plain", &order())
            .0,
        415
    );
    assert_eq!(served.post_with(SWITCHOVER, "x: y", &order()).0, 415);
    let with_charset = "content-type: Application/JSON; charset=utf-8";
    assert_eq!(served.post_with(SWITCHOVER, with_charset, &order()).0, 200);
}

#[test]
fn web_pages_can_order_nothing() {
    let served = Served::start();
    let from_a_page = "content-type: application/json\r\norigin: http://rebound.example:9400";

    assert_eq!(served.post_with(SWITCHOVER, from_a_page, &order()).0, 403);
    let delete = format!("DELETE /v1/operations/{ID} HTTP/1.1\r\nhost: x\r\n");
    let (status, _) = served.send(&format!(
        "{delete}connection: close\r\norigin: null\r\n\r\n"
    ));
    assert_eq!(status, 403);
    assert!(served.control.orders().is_empty());
}

#[test]
fn an_abort_is_taken_or_comes_too_late() {
    let served = Served::start();
    let path = format!("/v1/operations/{ID}");
    served.control.change(|script| script.outcome = None);
    served.post(&format!("{SWITCHOVER}?wait=false"), &order());

    for (answer, expected, text) in [
        (AbortAnswer::TooLate, 409, "has promoted its target"),
        (AbortAnswer::Ended, 409, "is over"),
        (AbortAnswer::Unknown, 404, "there is no operation"),
        (AbortAnswer::Aborting, 202, "\"state\":\"aborting\""),
        (AbortAnswer::Leaving, 202, "\"state\":\"leaving\""),
    ] {
        served.control.change(|script| script.abort = answer);
        let (status, body) = served.delete(&path);
        assert_eq!(status, expected, "{body}");
        assert!(body.contains(text), "{body}");
    }
    assert_eq!(served.delete("/v1/operations/other").0, 404);
}

#[test]
fn what_is_not_there_is_told_in_json() {
    let served = Served::start();

    let (status, body) = served.get("/v1/shards/other");
    assert_eq!(
        (status, &*error(&body)),
        (404, "there is no shard other: there is main")
    );
    let (status, body) = served.post("/v1/shards/other/switchover", &order());
    assert_eq!(
        (status, &*error(&body)),
        (404, "there is no shard other: there is main")
    );
    assert_eq!(served.get("/v1/operations/none").0, 404);
    let (status, body) = served.get("/v2");
    assert_eq!(
        (status, &*error(&body)),
        (404, "there is no such path: begin at /v1/shards")
    );
    let (status, body) = served.get(SWITCHOVER);
    assert_eq!(status, 405);
    assert!(error(&body).contains("does not know that method"));
}

#[test]
fn the_status_page_may_only_talk_to_where_it_came_from() {
    let served = Served::start();

    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (status, page) = served.send_for_head(request);

    assert_eq!(status, 200);
    let policy = "content-security-policy: default-src 'none'; script-src 'unsafe-inline'";
    assert!(page.contains(policy), "{page}");
    assert!(page.contains("fetch(\"/v1/shards\""));
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "it needs nobody else"
    );
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let served = Served::start();
    let request = "HEAD /v1/shards HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(served.send(request), (200, String::new()));
}

#[test]
fn metrics_are_text_for_prometheus() {
    let served = Served::start();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (status, answer) = served.send_for_head(request);
    assert_eq!(status, 200);
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{answer}"
    );
}

#[test]
fn an_open_connection_does_not_keep_the_interface_from_ending() {
    let served = Served::start();
    let mut idle = std::net::TcpStream::connect(served.address).expect("it listens");
    idle.set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .expect("it is set");

    // Answered once, so that it is known to be accepted and kept open.
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("it is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut byte = [0];
        idle.read_exact(&mut byte).expect("it is answered");
        answer.extend(byte);
    }

    drop(served);

    let mut rest = Vec::new();
    idle.read_to_end(&mut rest)
        .expect("the connection is closed");
    assert!(rest.is_empty());
}
