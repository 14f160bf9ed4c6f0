//! Who may do what: passwords, where secrets stand, the address of the admin API and its token.

use pointsman::config::Config;

use crate::{MINIMAL, check, parse};

#[test]
fn a_password_is_never_printed() {
    let shard = |line: &str| format!("{MINIMAL}{line}\n");
    let config = parse(&shard("password = \"s3cret\""));
    assert!(!format!("{config:?}").contains("s3cret"));
    assert_eq!(
        config.shards[0].password.as_ref().map(ToString::to_string),
        Some("***".into())
    );

    for faulty in [
        "password = [\"s3cret\"]",
        "password = \"s3cret",
        "pasword = \"s3cret\"",
        "requirepass = \"s3cret\"",
        "password s3cret",
        "PASSWORD = s3cret",
        "username = 1 # password = s3cret",
    ] {
        let errors = Config::parse(&shard(faulty), "config.toml").expect_err("it is faulty");
        assert!(
            !errors.to_string().contains("s3cret"),
            "{faulty} is printed:\n{errors}"
        );
    }
}

#[test]
fn a_secret_stands_in_the_file_or_in_another_one_or_in_the_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secret");
    let password = |line: &str| {
        let config = parse(&format!("{MINIMAL}{line}\n"));
        let secret = config.shards[0].password.clone();
        secret.expect("a password").expose().to_owned()
    };
    assert_eq!(password("password = \"s3cret\""), "s3cret");
    for (text, meant) in [
        ("s3cret", "s3cret"),
        ("s3 cret\r\n", "s3 cret"),
        ("a\n\n", "a\n"),
    ] {
        std::fs::write(&path, text).expect("it is written");
        assert_eq!(password(&format!("password_file = {path:?}")), meant);
    }
    // Cargo sets it for tests; what it holds does not matter.
    let known = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    assert_eq!(password("password_env = \"CARGO_MANIFEST_DIR\""), known);
}

#[test]
fn a_secret_stands_in_one_place_only_and_can_be_read_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("it is written");
        path
    };
    let faulty = |lines: &str, line: usize, column: usize, message: &str| {
        let text = format!("{MINIMAL}{lines}\n");
        let before = MINIMAL.lines().count();
        check(&text, &[(before + line, column, message)]);
        let errors = Config::parse(&text, "config.toml").expect_err("it is faulty");
        assert!(!errors.to_string().contains("s3cret"), "{errors}");
    };
    let twice = "`password_env` says what `password` says already: keep one of them";
    faulty("password = \"s3cret\"\npassword_env = \"A\"", 2, 16, twice);
    let twice = "`password_env` says what `password_file` says already: keep one of them";
    faulty("password_env = \"A\"\npassword_file = \"B\"", 1, 16, twice);
    let missing = "the file that `password_file` names cannot be read: No such file";
    faulty("password_file = \"/s3cret\"", 1, 17, missing);
    let unset = "the variable that `password_env` names is not set here";
    faulty("password_env = \"s3cret\"", 1, 16, unset);
    faulty("password_env = \"a=s3cret\"", 1, 16, unset);
    for (name, bytes, message) in [
        (
            "empty",
            &b"\n"[..],
            "the file that `password_file` names is empty",
        ),
        (
            "binary",
            b"\xff\xfe",
            "the file that `password_file` names is no text",
        ),
        (
            "long",
            &[b'a'; 65_537],
            "the file that `password_file` names has more than 65536 bytes",
        ),
    ] {
        let path = file(name, bytes);
        faulty(&format!("password_file = {path:?}"), 1, 17, message);
    }
    let path = file("longest", &[b'a'; 65_536]);
    parse(&format!("{MINIMAL}password_file = {path:?}\n"));
}

#[test]
fn an_admin_address_that_others_reach_needs_a_token_or_a_word() {
    let shard = "[[shard]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nnodes = [\"127.0.0.1:2\"]\n";
    let admin = |lines: &str| format!("[admin]\n{lines}\n{shard}");
    for listen in [
        "0.0.0.0:9400",
        "10.0.0.1:9400",
        "[::]:9400",
        "proxy.internal:9400",
    ] {
        let text = admin(&format!("listen = \"{listen}\""));
        check(
            &text,
            &[(2, 10, "whoever reaches this address can move the master")],
        );
        for more in [
            "token = \"0123456789abcdef\"",
            "allow_remote_without_token = true",
        ] {
            parse(&admin(&format!("listen = \"{listen}\"\n{more}")));
        }
    }
    for listen in [
        "127.0.0.1:9400",
        "127.8.9.1:0",
        "[::1]:9400",
        "LocalHost:9400",
    ] {
        parse(&admin(&format!("listen = \"{listen}\"")));
    }
}

#[test]
fn a_token_is_long_enough_and_fits_a_header() {
    let text = |token: &str| MINIMAL.replace("[admin]", &format!("[admin]\ntoken = {token:?}"));
    let short = "the admin token has fewer than 16 characters";
    check(&text("0123456789abcde"), &[(3, 9, short)]);
    let special = "the admin token has a space or a special character";
    check(&text("0123456789 abcdef"), &[(3, 9, special)]);
    check(&text("0123456789\u{e4}abcdef"), &[(3, 9, special)]);
    parse(&text("0123456789abcdef"));
}
