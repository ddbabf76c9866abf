//! Baselines through a registry, on a whole farm: they go from box to registry to box, and the coordinator holds none.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use andon_tests::farm::{Farm, QUICKLY_BACK};
use andon_tests::ok;
use andon_tests::project::Project;
use serde_json::Value;

/// Debian's registry, as a child; it ends with the test.
struct Registry {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 0.0.0.0:0\n",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("a configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry is installed: ci/test does it");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let port = said.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on [::]:")?;
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        });
        // What it says later is read, so that it never waits for us.
        std::thread::spawn(move || said.for_each(drop));
        Self { child, _folder: folder, port: port.expect("the registry says where it listens") }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This machine, as a box on the engine's own bridge sees it: where it would send from to that network. (Of a bridge that it has just
/// made, an engine does not say the gateway.)
fn host() -> IpAddr {
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    let subnet = ok(Command::new("docker").args(["network", "inspect", "bridge", "--format", format]));
    let (network, _) = subnet.trim().split_once('/').expect("a subnet has a length");
    let [a, b, c, d] = network.parse::<Ipv4Addr>().expect("an address").octets();
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((Ipv4Addr::new(a, b, c, d + 2), 9)).expect("there is a way to the bridge");
    socket.local_addr().expect("an address").ip()
}

/// What lies in the coordinator's blob store, by name.
fn blobs(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        match entry.file_type().expect("a kind").is_dir() {
            true => names.extend(blobs(&entry.path())),
            false => names.push(entry.file_name().to_string_lossy().into_owned()),
        }
    }
    names
}

#[test]
fn two_workers_share_a_baseline_by_a_registry_and_the_coordinator_holds_no_blob_of_it() {
    let registry = Registry::start();
    let address = format!("{}:{}/team/andon", host(), registry.port);
    let project = Project::from_fixture("mini");
    let farm =
        Farm::up(2, 1, &[&["--registry", &address, "--registry-insecure"], &QUICKLY_BACK[..]].concat())
            .with_database();
    let output = farm.run(&project.copy(), &["--project", "mini"]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let shown = farm.show(farm.newest());
    assert_eq!(shown["counts"]["passed"], 12, "{shown:#}");
    let tests = shown["tests"].as_array().expect("tests");
    let attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
    let workers: std::collections::BTreeSet<_> = attempts.filter_map(|one| one["worker"].as_str()).collect();
    assert_eq!(workers.len(), 2, "one built it, the other fetched it: {shown:#}");

    let key = shown["baseline_key"].as_str().expect("a baseline");
    let baseline = farm.json(&["baseline", "inspect", key]);
    let artifact = baseline["artifact"].as_str().expect("it lies in the registry");
    assert!(artifact.starts_with(&format!("{address}:{key}@sha256:")), "{artifact}");
    let inspected = ok(farm.andon().args(["baseline", "inspect", key]));
    assert!(inspected.contains(artifact), "{inspected}");

    let stored = blobs(&farm.state().join("coordinator/blobs"));
    let trees = baseline["trees"].as_array().expect("trees");
    let layers: Vec<&Value> =
        trees.iter().flat_map(|tree| tree["layers"].as_array().expect("layers")).collect();
    assert!(!layers.is_empty() && !stored.is_empty(), "{baseline:#}");
    for layer in layers {
        let digest = layer["blob_digest"].as_str().expect("a digest");
        assert!(
            !stored.iter().any(|name| name.contains(&digest[2..])),
            "{digest} is in the coordinator's store"
        );
    }
}
