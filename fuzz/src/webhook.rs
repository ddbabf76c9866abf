//! Webhooks of each forge: without the right signature nothing of a body matters; with it what is taken is in bounds.
//!
//! The first byte of an input says whose dialect it is, the second which event its header names; the rest is the body. The
//! signatures are made here, not by what checks them.

use andon::forge::hooks::{Delivery, Refusal, read};
use andon::forge::{Command, Event, Kind, Meaning, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use sha2::Sha256;

use crate::said;

const SECRET: &str = "a secret of some length, for fuzzing";
const SIGNING_KEY: &[u8] = b"a key of some length, for fuzzing too";
const REPOSITORY: &str = "acme/shop";
const NOW_UNIX_S: u64 = 1_700_000_000;
const NOW: &str = "1700000000";
const DELIVERY: &str = "72d3162e";

/// Who delivers, in the order of an input's first byte.
pub const DIALECTS: [&str; 5] = ["github", "gitlab", "gitlab-signed", "gitea", "forgejo"];
/// What it says its event is, in the order of an input's second byte.
pub const EVENTS: [&str; 17] = [
    "push",
    "pull_request",
    "issue_comment",
    "check_run",
    "check_suite",
    "create",
    "ping",
    "pull_request_sync",
    "pull_request_comment",
    "Push Hook",
    "Tag Push Hook",
    "Merge Request Hook",
    "Note Hook",
    "Job Hook",
    "",
    "x",
    "\u{7f}",
];

/// See the module.
pub fn check(input: &[u8]) {
    let [dialect, event, body @ ..] = input else { return };
    let dialect = Dialect::of(DIALECTS[usize::from(*dialect) % DIALECTS.len()]);
    let event = EVENTS[usize::from(*event) % EVENTS.len()];
    let ask = |headers: &HeaderMap, body: &[u8]| {
        read(dialect.kind, &[dialect.secret()], REPOSITORY, headers, body, NOW_UNIX_S)
    };
    let right = dialect.signed(event, body);
    match ask(&right, body) {
        Ok(delivery) => in_bounds(&delivery, event),
        Err(refusal @ (Refusal::Missing(_) | Refusal::Wrong | Refusal::Stale { .. })) => {
            panic!("rightly signed, and refused: {refusal}")
        }
        Err(refusal) => {
            said::showable(&refusal.to_string());
            if let Refusal::Malformed { why, .. } = refusal {
                said::showable(&why.to_string());
            }
        }
    }
    // One that was changed on its way, and one whose signature is whatever it likes to be.
    if dialect.signs_bodies {
        let mut changed = body.to_vec();
        match changed.first_mut() {
            Some(byte) => *byte ^= 1,
            None => changed.push(b'{'),
        }
        assert_eq!(ask(&right, &changed), Err(Refusal::Wrong), "changed, and taken");
    }
    let word = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Ok(word) = HeaderValue::from_bytes(&word[..word.len().min(256)]) {
        let mut forged = right;
        let known = forged.insert(dialect.header, word.clone()).expect("there was a right one");
        let answered = ask(&forged, body);
        let refused = matches!(answered, Err(Refusal::Missing(_) | Refusal::Wrong));
        assert!(refused || known == word, "forged with {word:?}: {answered:?}");
    }
}

struct Dialect {
    kind: Kind,
    /// Where its signature stands.
    header: &'static str,
    /// The body is part of what is signed.
    signs_bodies: bool,
    names: [&'static str; 2],
}

impl Dialect {
    fn of(name: &str) -> Self {
        let [github, gitlab, gitea, forgejo] = [
            ["x-github-delivery", "x-github-event"],
            ["webhook-id", "x-gitlab-event"],
            ["x-gitea-delivery", "x-gitea-event"],
            ["x-forgejo-delivery", "x-forgejo-event"],
        ];
        let new = |kind, header, signs_bodies, names| Self { kind, header, signs_bodies, names };
        match name {
            "github" => new(Kind::GitHub, "x-hub-signature-256", true, github),
            "gitlab" => new(Kind::GitLab, "x-gitlab-token", false, gitlab),
            "gitlab-signed" => new(Kind::GitLab, "webhook-signature", true, gitlab),
            "gitea" => new(Kind::Gitea, "x-gitea-signature", true, gitea),
            _ => new(Kind::Forgejo, "x-forgejo-signature", true, forgejo),
        }
    }

    fn secret(&self) -> Secret {
        Secret::new(match self.header {
            "webhook-signature" => format!("whsec_{}", STANDARD.encode(SIGNING_KEY)),
            _ => SECRET.to_owned(),
        })
    }

    fn signed(&self, event: &str, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| {
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value of ours"))
        };
        put(self.names[0], DELIVERY);
        // A name that no header can have is left away.
        if event.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            put(self.names[1], event);
        }
        let signature = match self.header {
            "x-hub-signature-256" => format!("sha256={}", hex::encode(hmac(SECRET.as_bytes(), &[body]))),
            "x-gitlab-token" => SECRET.to_owned(),
            "webhook-signature" => {
                put("webhook-timestamp", NOW);
                let parts = [DELIVERY.as_bytes(), b".", NOW.as_bytes(), b".", body];
                format!("v1,{}", STANDARD.encode(hmac(SIGNING_KEY, &parts)))
            }
            _ => hex::encode(hmac(SECRET.as_bytes(), &[body])),
        };
        put(self.header, &signature);
        headers
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Names become parts of refs, of log lines, of requests to the forge.
fn in_bounds(delivery: &Delivery, event: &str) {
    assert!(!event.is_empty(), "an event without a name");
    assert_eq!(delivery.id, DELIVERY);
    let commit = |commit: &str| {
        assert!(
            commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            "{commit:?}"
        );
    };
    let name = |name: &str| {
        assert!(
            !name.is_empty()
                && !name.starts_with('-')
                && !name.contains("..")
                && !name.contains(char::is_control)
        );
    };
    // Part of an address of the forge's API, where `..` would lead elsewhere.
    let login = |name: &str| {
        assert!(name.len() <= 255 && name.starts_with(|c: char| c.is_alphanumeric() || c == '_'), "{name:?}");
    };
    let event = match &delivery.meaning {
        Meaning::Nothing(why) => return said::showable(why),
        Meaning::Work(event) => event,
    };
    match event {
        Event::Push { branch, commit: of } => (name(branch), commit(of)).0,
        Event::Tag { tag, commit: of } => (name(tag), commit(of)).0,
        Event::Pull { commit: of, .. } => commit(of),
        Event::Rerun { commit: of, by } => (login(by), commit(of)).0,
        Event::Comment { command, by, .. } => {
            login(&by.name);
            if let Command::Approve { commit: Some(prefix) } = command {
                assert!(
                    (7..=40).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_hexdigit())
                );
            }
        }
    }
    said::showable(&event.to_string());
}
