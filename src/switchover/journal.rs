//! What must survive a crash of the proxy: which operation was under way, and how it ended.
//!
//! Owns one append-only file per shard, one JSON record per line: `begin` before any write is held,
//! `end` when it is over. Nothing is written in between: the nodes' own roles tell the rest.
//!
//! **Invariant:** a record counts when its line is complete. A line without its end was never
//! answered as durable, so nothing was done on the strength of it, and it is ignored. An incomplete
//! line anywhere but at the end is damage, and no operation starts until somebody has looked.
//!
//! Trade-off: a lock on the file keeps a second proxy on the same host out of it; proxies on other
//! hosts have journals of their own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::switchover::plan::{Facts, Terms};
use crate::switchover::report::Outcome;
use crate::switchover::sentinels;
use crate::topology::facts::Life;

/// A journal longer than this is not one; at start it holds a record or two.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Past this length the next operation begins a fresh file: some thousands of operations.
const COMPACT_BYTES: u64 = 4 << 20;

/// What recovery needs to know about an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub operation: String,
    pub shard: String,
    pub from: String,
    pub to: String,
    /// The replicas beside the target.
    pub others: Vec<String>,
    pub engine: String,
    /// `REPLICAOF`, or `SLAVEOF` where that is the only word.
    pub role_command: String,
    /// Where the old master is told to replicate from while it is fenced.
    pub sink_host: String,
    pub sink_port: u16,
    /// `replica-read-only` of the old master before the operation.
    pub replica_read_only: String,
    pub facts: Facts,
    pub terms: Terms,
    pub started_at_ms: u64,
    /// The run of the old master that was, or is about to be, fenced; a later one forgot the fence.
    #[serde(default)]
    pub old_life: Option<Life>,
    /// What the target held when it was last looked at; a master with less is not the promoted one.
    #[serde(default)]
    pub target_offset: u64,
    /// What the Sentinels are to be told after the promotion.
    #[serde(default)]
    pub sentinel_terms: Vec<sentinels::Terms>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line {
    Begin(Box<Begin>),
    End { operation: String, outcome: Outcome },
}

/// The journal of one shard, open and locked.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of complete records; what is behind them is the rest of a failed write.
    len: u64,
    unfinished: Option<Begin>,
}

impl Journal {
    /// Opens the journal of `shard`, and rewrites it so that only an unfinished record is left.
    pub fn open(state_dir: &Path, shard: &str) -> Result<Journal, JournalError> {
        let path = state_dir.join(format!("pointsman-{shard}.journal"));
        let failed = |source| JournalError::Unusable {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        lock(&file, &path)?;
        // Whoever had it open may have replaced it before we got the lock: it is theirs.
        let (ours, named) = (file.metadata(), std::fs::metadata(&path));
        if ours.map_err(failed)?.ino() != named.map_err(failed)?.ino() {
            return Err(JournalError::InUse { path });
        }
        let mut text = Vec::new();
        (&mut file)
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(failed)?;
        let unfinished = replay(&text, &path)?;
        let (file, len) = rewrite(&path, unfinished.as_ref())?;
        Ok(Journal {
            path,
            file,
            len,
            unfinished,
        })
    }

    /// The operation that began and, as far as the journal knows, never ended.
    pub fn unfinished(&self) -> Option<&Begin> {
        self.unfinished.as_ref()
    }

    /// Durable when it returns `Ok`. On an error nothing may be touched.
    pub fn begin(&mut self, begin: &Begin) -> Result<(), JournalError> {
        if self.len > COMPACT_BYTES {
            // An operation without its end is resolved by now: another one begins.
            (self.file, self.len) = rewrite(&self.path, None)?;
        }
        self.append(&Line::Begin(Box::new(begin.clone())))?;
        self.unfinished = Some(begin.clone());
        Ok(())
    }

    /// Durable when it returns `Ok`. On an error the next start looks at the nodes once more.
    pub fn end(&mut self, operation: &str, outcome: Outcome) -> Result<(), JournalError> {
        self.append(&Line::End {
            operation: operation.to_owned(),
            outcome,
        })?;
        self.unfinished = None;
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let text = encode(line);
        let written = self.write(&text);
        if written.is_err() {
            // Half a line in front of the next record would make both unreadable.
            let _ = self.file.set_len(self.len);
        }
        written.map_err(|source| JournalError::Unusable {
            path: self.path.clone(),
            source,
        })?;
        self.len += text.len() as u64;
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom};
        // A truncation that failed earlier is made up for here, or this write fails as well.
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(text)?;
        self.file.sync_data()
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::InUse {
            path: path.to_path_buf(),
        },
        TryLockError::Error(source) => JournalError::Unusable {
            path: path.to_path_buf(),
            source,
        },
    })
}

fn encode(line: &Line) -> Vec<u8> {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The last begin without an end, from all complete lines.
fn replay(text: &[u8], path: &Path) -> Result<Option<Begin>, JournalError> {
    let mut unfinished: Option<Begin> = None;
    let complete = text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1);
    let lines = text
        .get(..complete)
        .unwrap_or_default()
        .split(|&byte| byte == b'\n');
    for (at, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Line::Begin(begin)) => unfinished = Some(*begin),
            Ok(Line::End { operation, .. }) => {
                unfinished = unfinished.filter(|begin| begin.operation != operation);
            }
            Err(_) => {
                return Err(JournalError::Damaged {
                    path: path.to_path_buf(),
                    line: at + 1,
                });
            }
        }
    }
    Ok(unfinished)
}

/// Replaces the file by one that holds `unfinished` only. A crash leaves the old file or the new.
fn rewrite(path: &Path, unfinished: Option<&Begin>) -> Result<(File, u64), JournalError> {
    let failed = |source| JournalError::Unusable {
        path: path.to_path_buf(),
        source,
    };
    let fresh = path.with_extension("journal.new");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(&fresh).map_err(failed)?;
    lock(&file, path)?;
    let text = unfinished
        .map(|begin| encode(&Line::Begin(Box::new(begin.clone()))))
        .unwrap_or_default();
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    directory.sync_all().map_err(failed)?;
    Ok((file, text.len() as u64))
}

/// Why the journal cannot be relied on. No operation starts; nothing was touched on any node.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No space, no permission, or the directory is missing.
    #[error("the journal {} cannot be written: {source}; check state_dir", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    /// Two proxies with one journal would each take the other's operation for an interrupted one.
    #[error("another proxy uses the journal {}; give each its own state_dir", path.display())]
    InUse { path: PathBuf },
    /// Somebody wrote into it, or the disk lost something.
    #[error(
        "line {line} of the journal {} is damaged; see which node is master, then remove the file",
        path.display()
    )]
    Damaged { path: PathBuf, line: usize },
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
