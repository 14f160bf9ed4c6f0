//! Imports run one way: the two paths of the proxy meet in `shard` and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may name whom. A module may always name itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("shard", &[]),
    ("transport", &["config"]),
    ("upstream", &["resp", "transport"]),
    ("topology", &["resp", "config", "transport"]),
    ("client", &["resp", "upstream", "shard", "transport"]),
    (
        "switchover",
        &["resp", "config", "topology", "shard", "telemetry"],
    ),
    (
        "worker",
        &["client", "shard", "telemetry", "transport", "upstream"],
    ),
    ("admin", &["config", "switchover", "transport"]),
    (
        "server",
        &[
            "admin",
            "client",
            "config",
            "resp",
            "shard",
            "switchover",
            "telemetry",
            "transport",
            "worker",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "resp",
            "server",
            "switchover",
            "telemetry",
            "transport",
        ],
    ),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names behind `crate::` in a file, also those in braces: `use crate::{server, telemetry}`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let group = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default(),
        };
        for name in group.split(',') {
            let name = name.trim().split("::").next().unwrap_or_default();
            names.insert(name.to_owned());
        }
    }
    names
}

fn module_of(path: &Path, src: &Path) -> String {
    let inside = path.strip_prefix(src).expect("a file of src");
    let first = inside.components().next().expect("a file name");
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

#[test]
fn imports_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(
        files.len() > 20,
        "the walk found only {} files",
        files.len()
    );

    let mut wrong = Vec::new();
    for path in files {
        let module = module_of(&path, &src);
        if module == "main" || module == "lib" {
            continue;
        }
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is new: say here whom it may import"));
        let text = fs::read_to_string(&path).expect("a source file");
        for name in named_modules(&text) {
            let known = ALLOWED.iter().any(|(module, _)| *module == name);
            if known && name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} names crate::{name}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that run the wrong way:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_wrong_import_would_be_seen() {
    let seen = named_modules("use crate::{server, telemetry};\nfn f() { crate::client::x() }");
    let expected: BTreeSet<String> = ["server", "telemetry", "client"]
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(seen, expected);
    assert!(named_modules("// use crate::client;").is_empty());
}
