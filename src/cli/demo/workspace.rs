//! A temporary directory and the programs started in it, gone together whatever happens.
//!
//! **Invariant:** no program and no directory outlives the one who made them: not after a normal
//! end, an error, a panic or a signal (drop), and not after SIGKILL either (the tether).
//!
//! The tether is one small shell that reads process ids from a pipe. The pipe closes when its
//! writing end dies, by whatever cause; the shell then kills what is left and removes the
//! directory. `PR_SET_PDEATHSIG` would do the same but needs code between fork and exec, which is
//! unsafe.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ignores the terminal's signals, because what it guards must end after its owner, not with it.
const TETHER: &str = r#"
trap '' INT TERM HUP QUIT
pids=
while read -r word pid; do
  case $word in
    watch) pids="$pids $pid" ;;
    gone) left=; for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done; pids=$left ;;
    done) exit 0 ;;
  esac
done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
rm -rf -- "$1"
"#;

static WORKSPACES: AtomicU32 = AtomicU32::new(0);

pub struct Workspace {
    dir: PathBuf,
    tether: Mutex<Child>,
}

impl Workspace {
    /// Makes `<temp>/<prefix>-<process id>-<...>`.
    pub fn create(prefix: &str) -> io::Result<Arc<Workspace>> {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        let number = WORKSPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}-{nanos:x}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir)?;
        let tether = Command::new("sh")
            .args(["-c", TETHER, "tether"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Arc::new(Workspace {
            dir,
            tether: Mutex::new(tether),
        }))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a program whose output goes to `<name>.log` in the directory.
    ///
    /// It gets a process group of its own: a Ctrl-C in the terminal is for its owner, who ends it
    /// in the right order.
    pub fn start(self: &Arc<Self>, name: &str, command: &mut Command) -> io::Result<Started> {
        let log = self.dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        self.tell("watch", child.id());
        Ok(Started {
            child,
            log,
            workspace: self.clone(),
        })
    }

    fn tell(&self, word: &str, pid: u32) {
        let mut tether = self.tether.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = tether.stdin.as_mut() {
            // Only SIGKILL leaves something behind without a tether: no reason to stop.
            let _ = writeln!(pipe, "{word} {pid}");
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.tell("done", 0);
        let tether = self
            .tether
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        drop(tether.stdin.take());
        let _ = tether.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A running program; killed by its own id when dropped.
pub struct Started {
    child: Child,
    log: PathBuf,
    workspace: Arc<Workspace>,
}

impl Started {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    /// `Some` once the program has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal by name ("STOP", "CONT", "TERM") through the `kill` program.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string())
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill -{signal} failed")))
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.workspace.tell("gone", self.child.id());
    }

    /// The last lines the program wrote, for error messages.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        let from = all.len().saturating_sub(lines);
        all.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn alive(pid: u32) -> bool {
        // A zombie has been killed and merely awaits its parent.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[test]
    fn programs_and_directory_go_with_their_owner() {
        let workspace = Workspace::create("pointsman-test").unwrap();
        let started = workspace
            .start("sleeper", Command::new("sleep").arg("600"))
            .unwrap();
        let (pid, dir) = (started.pid(), workspace.dir().to_path_buf());
        assert!(alive(pid) && dir.is_dir());
        drop(workspace);
        assert!(alive(pid), "a running program keeps its directory");
        drop(started);
        assert!(!alive(pid) && !dir.exists());
    }

    #[test]
    fn the_tether_ends_what_a_killed_owner_left_behind() {
        let workspace = Workspace::create("pointsman-test").unwrap();
        let started = workspace
            .start("sleeper", Command::new("sleep").arg("600"))
            .unwrap();
        let mut tether = workspace.tether.lock().unwrap();
        // Closing the pipe is all the tether notices of its owner's death.
        drop(tether.stdin.take());
        tether.wait().unwrap();
        drop(tether);
        assert!(!workspace.dir().exists());
        // A killed program is gone when the kernel has come to it, not when the signal is sent.
        let deadline = Instant::now() + SOON;
        while alive(started.pid()) {
            assert!(Instant::now() < deadline, "still alive after {SOON:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
