//! A registry for one test: Debian's `docker-registry` as a child on a free port, behind a wire that writes down what is asked
//! and can break. Gone when dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{Login, Registry, RegistryConfig};

/// The user of a registry that asks for one.
pub(crate) const USER: &str = "farm";
pub(crate) const PASSWORD: &str = "open sesame";
/// Made by `htpasswd -nbBC 4 farm 'open sesame'`: the registry takes bcrypt only.
const HTPASSWD: &str = "farm:$2y$04$Voh/6lR.sOO9OrYbcBmQ8O5Gv6FBWW1XnEXqsvBmj8kPVz1BVVciK\n";
/// How long the registry may take to come up.
const READY: Duration = Duration::from_secs(30);
/// In tests what may pass is not waited for for long.
const RETRY_FOR: Duration = Duration::from_millis(300);

/// See the module.
pub(crate) struct TestRegistry {
    dir: tempfile::TempDir,
    child: Option<Child>,
    wire: Wire,
    asks_who: bool,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        Self::made(false).await
    }

    /// One that wants [`USER`] and [`PASSWORD`].
    pub(crate) async fn start_with_login() -> Self {
        Self::made(true).await
    }

    async fn made(asks_who: bool) -> Self {
        let (dir, wire) = (tempfile::tempdir().unwrap(), Wire::strung().await);
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let mut registry = Self { dir, child: None, wire, asks_who };
        registry.come_back().await;
        registry
    }

    /// Up again, with what it had.
    pub(crate) async fn come_back(&mut self) {
        let root = self.dir.path();
        let auth = match self.asks_who {
            true => format!("auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n", root.display()),
            false => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    \
             rootdirectory: {}/data\nhttp:\n  addr: 127.0.0.1:0\n{auth}",
            root.display()
        );
        let file = root.join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let spawned = command.kill_on_drop(true).spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!(
                "cannot start docker-registry (Debian's package of that name; ci/test installs it): {error}"
            )
        });
        let said = BufReader::new(child.stderr.take().unwrap());
        let behind =
            tokio::time::timeout(READY, listening(said)).await.expect("docker-registry comes up in time");
        *self.wire.behind.lock().unwrap() = Some(behind);
        self.child = Some(child);
    }

    /// Away: what connects is cut off.
    pub(crate) async fn go_away(&mut self) {
        *self.wire.behind.lock().unwrap() = None;
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    pub(crate) fn config(&self, login: Option<Login>) -> RegistryConfig {
        RegistryConfig::new(&format!("{}/team/andon", self.wire.address), true, login).unwrap()
    }

    /// A client of a worker's.
    pub(crate) async fn client(&self) -> Registry {
        Registry::new(self.config(None)).await.unwrap().patient_for(RETRY_FOR)
    }

    pub(crate) async fn client_with(&self, user: &str, password: &str) -> Registry {
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        Registry::new(self.config(Some(login))).await.unwrap().patient_for(RETRY_FOR)
    }

    /// Where the registry itself keeps a blob.
    pub(crate) fn blob_file(&self, sha256: &str) -> PathBuf {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&sha256[..2]).join(sha256).join("data")
    }

    /// Forgets a tag and the blobs, as whoever tidies up does.
    pub(crate) fn purge(&self) {
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// The next download breaks off after so many bytes of answers.
    pub(crate) fn cut_after(&self, bytes: usize) {
        *self.wire.cut.lock().unwrap() = Some(bytes);
    }

    /// What was asked since the last time: the heads of requests, lower case.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.wire.heads.lock().unwrap())
    }
}

/// Of these requests, those that carry a blob there.
pub(crate) fn uploads(asked: &[String]) -> usize {
    asked.iter().filter(|head| head.starts_with("put ") && head.contains("/blobs/uploads/")).count()
}

/// Reads what the registry says for as long as it lives; answers with where it listens.
async fn listening(said: BufReader<impl AsyncRead + Unpin + Send + 'static>) -> SocketAddr {
    let mut lines = said.lines();
    let mut all = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let address: String =
                rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return address.parse().unwrap();
        }
        all.push_str(&line);
        all.push('\n');
    }
    panic!("docker-registry ended:\n{all}");
}

type Shared<T> = Arc<Mutex<T>>;

/// Between the worker and the registry.
struct Wire {
    address: SocketAddr,
    behind: Shared<Option<SocketAddr>>,
    heads: Shared<Vec<String>>,
    cut: Shared<Option<usize>>,
    task: JoinHandle<()>,
}

impl Wire {
    async fn strung() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, heads, cut) = (Shared::default(), Shared::default(), Shared::default());
        let task = tokio::spawn({
            let (behind, heads, cut): (Shared<Option<SocketAddr>>, _, _) =
                (Arc::clone(&behind), Arc::clone(&heads), Arc::clone(&cut));
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    let target = *behind.lock().unwrap();
                    if let Some(target) = target {
                        tokio::spawn(carry(near, target, Arc::clone(&heads), Arc::clone(&cut)));
                    }
                }
            }
        });
        Self { address, behind, heads, cut, task }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: TcpStream, target: SocketAddr, heads: Shared<Vec<String>>, cut: Shared<Option<usize>>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_near.read(&mut chunk).await {
            if let Some(head) = head_of(&chunk[..read]) {
                heads.lock().unwrap().push(head);
            }
            if to_far.write_all(&chunk[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_far.read(&mut chunk).await {
            let left = {
                let mut cut = cut.lock().unwrap();
                let left = cut.map(|left| left.min(read));
                *cut = cut.and_then(|left| left.checked_sub(read)).filter(|left| *left > 0);
                left.filter(|_| cut.is_none())
            };
            if to_near.write_all(&chunk[..left.unwrap_or(read)]).await.is_err() || left.is_some() {
                return;
            }
        }
    };
    tokio::select! { () = there => {}, () = back => {} }
}

fn head_of(bytes: &[u8]) -> Option<String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_lowercase();
    ["get ", "head ", "put ", "post ", "patch ", "delete "]
        .iter()
        .any(|verb| head.starts_with(verb))
        .then_some(head)
}
