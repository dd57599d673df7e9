//! The real program in a home of its own: run a command, read its answer, and leave no mount and no process behind.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test: `PARSECFS_MOUNTCTL`, or the one of this build, built once when it is not there.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("PARSECFS_MOUNTCTL") {
        Some(path) => PathBuf::from(path),
        None => built(),
    })
}

/// Beside the folder of this test's own program; cargo is asked to bring it up to date.
fn built() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its program");
    let folder = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "mountctl", "--bin", "mountctl"]);
    if folder.file_name().is_some_and(|profile| profile == "release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    build.env("CARGO_TARGET_DIR", folder.parent().expect("a profile is in the target folder"));
    assert!(build.status().expect("cargo runs").success(), "mountctl builds");
    folder.join("mountctl")
}

/// Whether this machine can mount; a test that needs it says SKIP otherwise, and CI fails on that.
pub fn can_mount() -> bool {
    let can = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    assert!(can || std::env::var_os("CI").is_none(), "/dev/fuse is missing in CI");
    if !can {
        eprintln!("SKIP: /dev/fuse cannot be opened here");
    }
    can
}

/// The entry that was written last into a folder of a storage's log.
pub fn newest_entry(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder lists");
    entries.map(|entry| entry.expect("a folder lists").path()).max().expect("the log has entries")
}

/// A home in a temporary directory. Dropped, it unmounts everything and ends its agent.
pub struct CliHome {
    dir: TempDir,
    /// How many deaths of the agent its keeper bears within a minute, if not the default.
    deaths_max: Option<u64>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("mountctl writes UTF-8");
        Self { code: exit_code(output.status), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The JSON error on stderr, which is all that is there.
    #[track_caller]
    pub fn error(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error} in {self:?}"));
        value["error"].clone()
    }
}

fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code()
}

impl Default for CliHome {
    fn default() -> Self {
        Self::new()
    }
}

impl CliHome {
    /// An empty home.
    pub fn new() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory"), deaths_max: None }
    }

    /// The same, whose keeper bears this many deaths of the agent within a minute.
    pub fn with_deaths(deaths_max: u64) -> Self {
        let mut home = Self::new();
        home.deaths_max = Some(deaths_max);
        home
    }

    /// A path beside the home that goes away with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The storage directory of [`CliHome::with_workspace`], as an argument.
    pub fn storage(&self) -> String {
        self.path("storage").to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// The home itself.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A command for this home, with `--json`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // Who runs the tests in the background of a script ignores interrupts, and so would all that they start.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(program());
        command.arg("--home").arg(self.home()).arg("--json").args(arguments);
        command.env_remove("MOUNTCTL_HOME").env_remove("MOUNTCTL_DEVICE").env_remove("MOUNTCTL_PASSWORD_FILE");
        command.env_remove("DBUS_SESSION_BUS_ADDRESS").stdin(Stdio::null());
        command.envs(self.deaths_max.map(|max| ("MOUNTCTL_AGENT_DEATHS_MAX", max.to_string())));
        command
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::new(self.command(arguments).output().expect("mountctl runs"))
    }

    /// Runs a command that reads this on standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mountctl runs");
        let mut stdin = child.stdin.take().expect("asked for as a pipe");
        // A command that needs no input may end before it is written.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Said::new(child.wait_with_output().expect("mountctl ends"))
    }

    /// Runs a command that must succeed, and returns its document.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said.json()
    }

    /// Runs a command that must fail with this exit code, and returns its error.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> Value {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        said.error()
    }

    /// Process of the agent, if one runs.
    pub fn agent_pid(&self) -> Option<u32> {
        self.process("serve")
    }

    /// Process of the agent's keeper, if one runs.
    pub fn keeper_pid(&self) -> Option<u32> {
        self.process("keep")
    }

    fn process(&self, what: &str) -> Option<u32> {
        let wanted = self.home();
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let words: Vec<_> = line.split(|&byte| byte == 0).collect();
            let ours = words.contains(&b"agent".as_slice())
                && words.contains(&what.as_bytes())
                && words.contains(&std::os::unix::ffi::OsStrExt::as_bytes(wanted.as_os_str()));
            ours.then_some(pid)
        })
    }

    /// Ends the agent and its keeper at once, as if somebody killed all there is: nothing goes on.
    pub fn kill_agent(&self) {
        for pid in [self.keeper_pid(), self.agent_pid()].into_iter().flatten() {
            kill(pid);
        }
    }

    /// Ends the agent at once, as a crash would. Its keeper starts another one. Returns the process that is gone.
    #[track_caller]
    pub fn crash_agent(&self) -> u32 {
        let pid = self.agent_pid().expect("an agent runs");
        signal(pid, "KILL");
        pid
    }

    /// A workspace in an organization in a directory, its device protected by a key file. Returns the workspace's id.
    #[track_caller]
    pub fn with_workspace(&self, name: &str) -> String {
        let storage = self.path("storage");
        let storage = storage.to_str().expect("temporary paths are UTF-8");
        let person = ["--email", "alice@example.com", "--name", "Alice", "--device-label", "laptop"];
        self.ok(&[&["org", "create", "Org", "--backend", storage, "--auth", "keyfile"], &person[..]].concat());
        self.ok(&["workspace", "create", name])["workspace_id"].as_str().expect("an id").to_owned()
    }

    /// Makes a workspace `Photos` and mounts it. Returns where.
    #[track_caller]
    pub fn with_mount(&self) -> String {
        self.with_workspace("Photos");
        let dir = self.mount_point("mnt");
        self.ok(&["mount", "Photos", &dir]);
        dir
    }

    /// A home with a mounted workspace, or nothing where one cannot mount.
    #[track_caller]
    pub fn mounted() -> Option<(Self, String)> {
        can_mount().then(|| {
            let home = Self::new();
            let dir = home.with_mount();
            (home, dir)
        })
    }

    /// Another home of the same person, with a device of this name made from a recovery file. Both devices have the
    /// same files from then on; nothing is mounted there.
    #[track_caller]
    pub fn second_device(&self, label: &str) -> Self {
        let file = self.path("recovery");
        let file = file.to_str().expect("temporary paths are UTF-8");
        let exported = self.ok(&["device", "recovery", "export", file]);
        let second = Self::new();
        let passphrase = second.path("passphrase");
        std::fs::write(&passphrase, exported["passphrase"].as_str().expect("a passphrase")).expect("a file is written");
        let passphrase = passphrase.to_str().expect("temporary paths are UTF-8");
        let how = ["--passphrase-file", passphrase, "--auth", "keyfile", "--device-label", label];
        second.ok(&[&["device", "recovery", "import", file], &how[..]].concat());
        second
    }

    /// Makes an empty directory to mount on.
    pub fn mount_point(&self, name: &str) -> String {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).expect("a directory can be made");
        dir.canonicalize().expect("it is there").to_str().expect("temporary paths are UTF-8").to_owned()
    }
}

/// Ends a process at once and waits until it is gone.
pub fn kill(pid: u32) {
    signal(pid, "KILL");
    while Path::new("/proc").join(pid.to_string()).join("exe").exists() && alive(pid) {
        std::thread::yield_now();
    }
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Sends a signal by its name without SIG.
pub fn signal(pid: u32, name: &str) {
    // It may have ended by itself meanwhile.
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status();
}

impl Drop for CliHome {
    fn drop(&mut self) {
        // A failed test may have left it stopped.
        self.agent_pid().inspect(|&pid| signal(pid, "CONT"));
        let _ = self.command(&["umount", "--all", "--force"]).output();
        if let Some(pid) = self.agent_pid() {
            signal(pid, "TERM");
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while alive(pid) && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
        for entry in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let dir = entry.split(' ').nth(4).unwrap_or_default();
            if Path::new(dir).starts_with(self.dir.path()) {
                let _ = Command::new("umount").arg("-l").arg(dir).status();
                // Disks of the test itself go with it; a mount of ours must be gone by now.
                if entry.contains(" - fuse.parsecfs ") && !std::thread::panicking() {
                    panic!("a mount was left behind");
                }
            }
        }
    }
}

/// The shape of a document: its keys, with the kind of each value in place of the value.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => json!(items.iter().map(shape).collect::<Vec<_>>()),
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect()),
    }
}
