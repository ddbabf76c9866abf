//! The door over real HTTP: what is answered, and what is on the disk when it is.

use std::time::Instant;

use reqwest::{Client, RequestBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::forge::{Kind, Secret};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const COMMIT: &str = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";

struct Setup {
    folder: tempfile::TempDir,
    address: std::net::SocketAddr,
    wake: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let inbox = Arc::new(Inbox::open(&folder.path().join("deliveries.ledger")).unwrap());
    let wake = Arc::new(Notify::new());
    let hooks =
        Hooks { kind: Kind::GitLab, secrets: vec![Secret::new(SECRET)], repository: "acme/shop".to_owned() };
    let door = Door { hooks, wake: Arc::clone(&wake) };
    let server = Arc::new(Server { doors: HashMap::from([("shop".to_owned(), door)]), inbox });
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(server.serve(listener));
    Setup { folder, address, wake, task }
}

fn push(number: usize) -> String {
    let text = include_str!("../../../tests/payloads/gitlab-push.json");
    text.replace("$COMMIT", COMMIT).replace("$REF", &format!("refs/heads/b{number}"))
}

impl Setup {
    fn post(&self, project: &str, id: &str, body: String) -> RequestBuilder {
        let client = Client::builder().no_proxy().build().unwrap();
        client
            .post(format!("http://{}/hooks/{project}", self.address))
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .header("x-gitlab-event", "Push Hook")
            .header("x-gitlab-token", SECRET)
            .body(body)
    }

    /// What a gateway that starts now would have to handle.
    fn on_disk(&self) -> usize {
        let path = self.folder.path().join("deliveries.ledger");
        let copy = self.folder.path().join("copy");
        std::fs::copy(path, &copy).unwrap();
        Inbox::open(&copy).unwrap().waiting("shop").len()
    }
}

async fn answered(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("it answers");
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test]
async fn a_delivery_is_on_the_disk_when_it_is_acknowledged_and_is_taken_once() {
    let setup = setup().await;
    let (status, said) = answered(setup.post("shop", "1", push(1))).await;
    assert_eq!((status, said.as_str()), (202, "delivery 1: push of b1 at 0d1a26e\n"));
    assert_eq!(setup.on_disk(), 1);
    tokio::time::timeout(Duration::from_secs(10), setup.wake.notified()).await.expect("the watcher is woken");
    let (status, said) = answered(setup.post("shop", "1", push(1))).await;
    assert_eq!(status, 200);
    assert!(said.contains("taken before"), "{said}");
    let (status, said) = answered(setup.post("shop", "2", push(1))).await;
    assert_eq!(status, 200);
    assert!(said.contains("replayed"), "{said}");
    assert_eq!(setup.on_disk(), 1);
}

#[tokio::test]
async fn what_is_refused_is_refused_by_name_and_leaves_nothing() {
    let setup = setup().await;
    let good = || setup.post("shop", "1", push(1));
    let client = Client::builder().no_proxy().build().unwrap();
    let at = |path: &str| format!("http://{}{path}", setup.address);
    let bare = client.post(at("/hooks/shop")).header("content-type", "application/json");
    for (request, status, words) in [
        (setup.post("nobody", "1", push(1)), 404, "no project of this name"),
        (setup.post("../shop", "1", push(1)), 404, "webhooks go to /hooks/PROJECT"),
        (client.get(at("/hooks/shop")), 405, "POSTed"),
        (client.get(at("/")), 404, "/hooks/PROJECT"),
        (bare.try_clone().unwrap().body(push(1)), 401, "X-Gitlab-Token"),
        (bare.header("x-gitlab-token", "wrong").body(push(1)), 403, "the signature is wrong"),
        (good().header("content-type", "application/x-www-form-urlencoded"), 415, "application/json"),
        (setup.post("shop", "1", "{".into()), 400, "malformed"),
        (setup.post("shop", "1", push(1).replace("acme/shop", "acme/other")), 422, "acme/other"),
        (setup.post("shop", "1", "x".repeat(BODY_BYTES_MAX + 1)), 413, "more than 5242880 bytes"),
        (setup.post("shop", "1", push(1).replace("refs/heads/b1", "refs/heads/-h")), 400, "branch's name"),
    ] {
        let sent = match request.build() {
            Ok(request) if request.headers().get_all("content-type").iter().count() > 1 => {
                // Two of a header: the second is meant.
                let mut request = request;
                let last = request.headers().get_all("content-type").iter().next_back().cloned().unwrap();
                request.headers_mut().insert("content-type", last);
                request
            }
            built => built.unwrap(),
        };
        let response = client.execute(sent).await.expect("it answers");
        let (found, said) = (response.status().as_u16(), response.text().await.unwrap_or_default());
        assert_eq!(found, status, "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!said.contains(SECRET));
    }
    let (status, said) =
        answered(setup.post("shop", "1", "{}".into()).header("x-gitlab-event", "Pipeline Hook")).await;
    assert!(matches!(status, 200 | 400), "{said}");
    assert_eq!(setup.on_disk(), 0);
    let (status, _) = answered(good()).await;
    assert_eq!(status, 202, "and a good one is still taken");
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_at_the_limit_all_the_same() {
    let setup = setup().await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    let head = "POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: \
                chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let writing = async {
        // Until the other side has had enough: then the connection ends.
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            let mut seen = [0; 64];
            let waited = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut seen)).await;
            if let Ok(Ok(read)) = waited {
                return String::from_utf8_lossy(&seen[..read]).into_owned();
            }
        }
        String::new()
    };
    let said = tokio::time::timeout(Duration::from_secs(20), writing).await.expect("it ends");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said}");
    assert_eq!(setup.on_disk(), 0);
}

#[tokio::test]
async fn a_sender_that_says_nothing_holds_its_connection_for_a_bounded_time() {
    let setup = setup().await;
    let mut silent = TcpStream::connect(setup.address).await.unwrap();
    silent.write_all(b"POST /hooks/shop HTTP/1.1\r\n").await.unwrap();
    // Others are served meanwhile.
    assert_eq!(answered(setup.post("shop", "1", push(1))).await.0, 202);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(3 * REQUEST_TIME_MAX, silent.read_to_end(&mut rest)).await;
    ended.expect("the connection is closed").ok();
}

#[tokio::test]
async fn many_deliveries_at_once_are_each_acknowledged_from_the_disk() {
    const DELIVERIES: usize = 200;
    let setup = setup().await;
    let client = Client::builder().no_proxy().build().unwrap();
    let sending = (0..DELIVERIES).map(|number| {
        let request = setup.post("shop", &number.to_string(), push(number)).build().unwrap();
        let client = client.clone();
        async move {
            let asked = Instant::now();
            let status = client.execute(request).await.expect("it answers").status().as_u16();
            (status, asked.elapsed())
        }
    });
    let answers = futures::future::join_all(sending).await;
    assert!(answers.iter().all(|(status, _)| *status == 202), "{answers:?}");
    assert_eq!(setup.on_disk(), DELIVERIES);
    let mut times: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
    times.sort();
    assert!(
        times[DELIVERIES - 1] < REQUEST_TIME_MAX / 2,
        "somebody waited for an idle connection: {times:?}"
    );
    println!("acknowledged: median {:?}, p99 {:?}", times[DELIVERIES / 2], times[DELIVERIES * 99 / 100]);
}
