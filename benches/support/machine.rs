//! What a result cannot be read without: the machine, the versions, the command and the day.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

/// Where Debian keeps daemons; it is not on everybody's PATH.
const MORE_DIRS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Written into every result. Host names and addresses are left out on purpose.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub date: String,
    pub command: String,
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    pub versions: Vec<String>,
}

impl Machine {
    /// `programs`: what is asked for its version, each with the argument that makes it tell.
    pub fn look(command: String, programs: &[(&str, &str)]) -> Machine {
        let mut versions = vec![format!("pointsman {}", env!("CARGO_PKG_VERSION"))];
        versions.extend(
            programs
                .iter()
                .filter_map(|(name, ask)| first_line(name, &[ask])),
        );
        Machine {
            date: first_line("date", &["-u", "+%F"]).unwrap_or_else(|| "undated".into()),
            command,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu_model().unwrap_or_else(|| "unknown".into()),
            kernel: first_line("uname", &["-sr"]).unwrap_or_else(|| "unknown".into()),
            versions,
        }
    }

    /// One line below a table.
    pub fn line(&self) -> String {
        format!(
            "{}; {} cores, {}; {}; {}; `{}`",
            self.date,
            self.cores,
            self.cpu,
            self.kernel,
            self.versions.join(", "),
            self.command
        )
    }
}

/// Where a program is, if it is installed.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(MORE_DIRS.map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Writes a result as `benches/results/<date>-<name>.json`; a later one of the same day replaces
/// it.
pub fn keep(date: &str, name: &str, result: &impl Serialize) -> anyhow::Result<PathBuf> {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results"));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = dir.join(format!("{date}-{name}.json"));
    let text = serde_json::to_string_pretty(result)? + "\n";
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Writes the page of a result beside it, or, when the result is not kept, where temporary files
/// go.
#[allow(dead_code)] // Not every benchmark has one of its own.
pub fn keep_page(date: &str, name: &str, page: &str, quick: bool) -> anyhow::Result<PathBuf> {
    let dir = match quick {
        true => std::env::temp_dir(),
        false => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results")),
    };
    let file = dir.join(format!("{date}-{name}.html"));
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn first_line(name: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program(name)?).args(args).output().ok()?;
    // Some programs tell their version on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    // haproxy and redis-server append where they come from and how they were built.
    let short = line.split(" - ").next().unwrap_or(line);
    let short = short.split(" sha=").next().unwrap_or(short);
    let short = short.trim_start_matches("This is ");
    Some(short.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
