//! Deliveries shaped as in the forges' documentation, signed by `openssl`; and those that are hostile.

use std::io::Write as _;
use std::process::{Command as Process, Stdio};

use base64::Engine as _;
use hyper::header::{HeaderName, HeaderValue};

use super::super::{Author, Command, Event, May};
use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const COMMIT: &str = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
const NOW: u64 = 1_700_000_000;

macro_rules! payload {
    ($name:literal) => {
        include_str!(concat!("../../../tests/payloads/", $name, ".json"))
    };
}

/// What `openssl` says, which shares no code with us.
fn openssl(key_hex: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Process::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key_hex}"), "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("piped").write_all(input).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success());
    output.stdout
}

fn hex_signature(secret: &str, body: &[u8]) -> String {
    hex::encode(openssl(&hex::encode(secret), body))
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        })
        .collect()
}

fn filled(template: &str, pairs: &[(&str, &str)]) -> String {
    let text = template.replace("$COMMIT", COMMIT);
    pairs.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

fn secrets(all: &[&str]) -> Vec<Secret> {
    all.iter().map(|secret| Secret::new(*secret)).collect()
}

fn github(event: &str, body: &str) -> Result<Delivery, Refusal> {
    let signature = format!("sha256={}", hex_signature(SECRET, body.as_bytes()));
    let pairs =
        [("X-GitHub-Delivery", "72d3162e"), ("X-GitHub-Event", event), ("X-Hub-Signature-256", &signature)];
    read(Kind::GitHub, &secrets(&[SECRET]), "acme/shop", &headers(&pairs), body.as_bytes(), NOW)
}

fn gitlab(event: &str, body: &str) -> Result<Delivery, Refusal> {
    let pairs = [("Idempotency-Key", "1"), ("X-Gitlab-Event", event), ("X-Gitlab-Token", SECRET)];
    read(Kind::GitLab, &secrets(&[SECRET]), "acme/shop", &headers(&pairs), body.as_bytes(), NOW)
}

fn gitea(event: &str, body: &str) -> Result<Delivery, Refusal> {
    let signature = hex_signature(SECRET, body.as_bytes());
    let pairs = [("X-Gitea-Delivery", "f6"), ("X-Gitea-Event", event), ("X-Gitea-Signature", &signature)];
    read(Kind::Gitea, &secrets(&[SECRET]), "acme/shop", &headers(&pairs), body.as_bytes(), NOW)
}

fn work(delivery: Result<Delivery, Refusal>) -> Event {
    match delivery.expect("it is taken").meaning {
        Meaning::Work(event) => event,
        Meaning::Nothing(why) => panic!("it starts nothing: {why}"),
    }
}

fn nothing(delivery: Result<Delivery, Refusal>) -> String {
    match delivery.expect("it is taken").meaning {
        Meaning::Work(event) => panic!("it starts {event}"),
        Meaning::Nothing(why) => why,
    }
}

fn push() -> Event {
    Event::Push { branch: "main".into(), commit: COMMIT.into() }
}

fn pull(fork: bool) -> Event {
    Event::Pull { number: 7, commit: COMMIT.into(), fork }
}

fn comment(id: u64, command: Command, may: May) -> Event {
    Event::Comment { number: 7, command, by: Author { name: "ann".into(), id }, may }
}

#[test]
fn the_documented_test_vector_of_github_holds() {
    // "Validating webhook deliveries", GitHub's documentation.
    let expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert!(signature::hex_matches(&secrets(&[SECRET]), b"Hello, World!", expected));
    assert_eq!(hex_signature(SECRET, b"Hello, World!"), expected, "and openssl agrees");
}

#[test]
fn githubs_deliveries_are_understood() {
    let branch = filled(payload!("github-push"), &[("$REF", "refs/heads/main")]);
    assert_eq!(work(github("push", &branch)), push());
    let tag = filled(payload!("github-push"), &[("$REF", "refs/tags/v1")]);
    assert_eq!(work(github("push", &tag)), Event::Tag { tag: "v1".into(), commit: COMMIT.into() });
    for action in ["opened", "synchronize", "reopened"] {
        let own = filled(payload!("github-pull-request"), &[("$ACTION", action)]);
        assert_eq!(work(github("pull_request", &own)), pull(false));
        for fork in [payload!("github-pull-request-fork"), payload!("github-pull-request-fork-deleted")] {
            let fork = filled(fork, &[("$ACTION", action)]);
            assert_eq!(work(github("pull_request", &fork)), pull(true));
        }
    }
    let closed = filled(payload!("github-pull-request"), &[("$ACTION", "closed")]);
    assert!(nothing(github("pull_request", &closed)).contains("closed"));
    let rerun = Event::Rerun { commit: COMMIT.into(), by: "Codertocat".into() };
    assert_eq!(work(github("check_run", &filled(payload!("github-check-run"), &[]))), rerun);
    assert_eq!(work(github("check_suite", &filled(payload!("github-check-suite"), &[]))), rerun);
    assert!(nothing(github("ping", payload!("github-ping"))).contains("set up"));
    assert!(nothing(github("star", "{}")).contains("\"star\" starts nothing"));
}

#[test]
fn githubs_comments_count_for_those_who_may() {
    let said = |association: &str, body: &str| {
        let pairs = [("$LOGIN", "ann"), ("$ASSOCIATION", association), ("$BODY", body)];
        github("issue_comment", &filled(payload!("github-issue-comment"), &pairs))
    };
    for (association, may) in [
        ("OWNER", May::Yes),
        ("MEMBER", May::Yes),
        ("COLLABORATOR", May::Yes),
        ("CONTRIBUTOR", May::No),
        ("FIRST_TIME_CONTRIBUTOR", May::No),
        ("NONE", May::No),
        ("MANNEQUIN", May::No),
    ] {
        let expected = comment(21_031_067, Command::Rerun { all: false }, may);
        assert_eq!(work(said(association, "/andon rerun")), expected, "{association}");
    }
    assert!(nothing(said("OWNER", "nice")).contains("without a command"));
    let edited =
        filled(payload!("github-issue-comment"), &[("$BODY", "/andon rerun"), ("created\"", "edited\"")]);
    assert!(nothing(github("issue_comment", &edited)).contains("only new comments"));
}

#[test]
fn gitlabs_deliveries_are_understood() {
    let branch = filled(payload!("gitlab-push"), &[("$REF", "refs/heads/main")]);
    assert_eq!(work(gitlab("Push Hook", &branch)), push());
    let tag = filled(payload!("gitlab-tag-push"), &[("$REF", "refs/tags/v1")]);
    let expected = Event::Tag { tag: "v1".into(), commit: COMMIT.into() };
    assert_eq!(work(gitlab("Tag Push Hook", &tag)), expected, "the commit, not the tag's own object");
    assert_eq!(
        work(gitlab("Merge Request Hook", &filled(payload!("gitlab-merge-request"), &[]))),
        pull(false)
    );
    let moved = filled(payload!("gitlab-merge-request-update"), &[]);
    assert_eq!(work(gitlab("Merge Request Hook", &moved)), pull(false));
    assert_eq!(
        work(gitlab("Merge Request Hook", &filled(payload!("gitlab-merge-request-fork"), &[]))),
        pull(true)
    );
    let titled = moved.replace("oldrev", "other");
    assert!(nothing(gitlab("Merge Request Hook", &titled)).contains("moves no head"));
    let note = filled(payload!("gitlab-note"), &[("$LOGIN", "ann"), ("$BODY", "/andon rerun all")]);
    assert_eq!(work(gitlab("Note Hook", &note)), comment(11, Command::Rerun { all: true }, May::Ask));
    assert!(nothing(gitlab("Pipeline Hook", "{}")).contains("Pipeline Hook"));
}

#[test]
fn giteas_and_forgejos_deliveries_are_understood() {
    let branch = filled(payload!("gitea-push"), &[("$REF", "refs/heads/main")]);
    assert_eq!(work(gitea("push", &branch)), push());
    let own = filled(payload!("gitea-pull-request"), &[("$ACTION", "opened")]);
    assert_eq!(work(gitea("pull_request", &own)), pull(false));
    let fork = filled(payload!("gitea-pull-request-fork"), &[("$ACTION", "synchronized")]);
    assert_eq!(work(gitea("pull_request_sync", &fork)), pull(true));
    let note =
        filled(payload!("gitea-issue-comment"), &[("$LOGIN", "ann"), ("$BODY", "/andon approve 0d1a26e")]);
    let approve = Command::Approve { commit: Some("0d1a26e".into()) };
    assert_eq!(work(gitea("issue_comment", &note)), comment(11, approve, May::Ask));

    // Forgejo's own headers count where they are there: a right one of Gitea's does not rescue a wrong one.
    let right = hex_signature(SECRET, branch.as_bytes());
    let wrong = hex_signature("another", branch.as_bytes());
    let with = |forgejo: &str, gitea: &str| {
        let pairs = [
            ("X-Forgejo-Delivery", "1"),
            ("X-Forgejo-Event", "push"),
            ("X-Forgejo-Signature", forgejo),
            ("X-Gitea-Signature", gitea),
        ];
        read(Kind::Forgejo, &secrets(&[SECRET]), "acme/shop", &headers(&pairs), branch.as_bytes(), NOW)
    };
    assert_eq!(work(with(&right, &right)), push());
    assert_eq!(with(&wrong, &right), Err(Refusal::Wrong));
}

/// A signing token as GitLab makes one, and a request signed with it at some time.
fn standard(
    signed_at: u64,
    body: &str,
    change: impl FnOnce(&mut Vec<(String, String)>),
) -> Result<Delivery, Refusal> {
    let key = [7_u8; 32];
    let token = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(key));
    let signed = format!("msg_1.{signed_at}.{body}");
    let mac = openssl(&hex::encode(key), signed.as_bytes());
    let signature = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac));
    let mut pairs = vec![
        ("webhook-id".to_owned(), "msg_1".to_owned()),
        ("webhook-timestamp".to_owned(), signed_at.to_string()),
        ("webhook-signature".to_owned(), signature),
        ("X-Gitlab-Event".to_owned(), "Push Hook".to_owned()),
        ("X-Gitlab-Token".to_owned(), SECRET.to_owned()),
    ];
    change(&mut pairs);
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let known = secrets(&[&token, SECRET]);
    read(Kind::GitLab, &known, "acme/shop", &headers(&pairs), body.as_bytes(), NOW)
}

#[test]
fn gitlabs_signing_token_is_demanded_where_there_is_one() {
    let body = filled(payload!("gitlab-push"), &[("$REF", "refs/heads/main")]);
    let signed = |at: u64| standard(at, &body, |_| ());
    assert_eq!(work(signed(NOW)), push());
    assert_eq!(signed(NOW).unwrap().id, "msg_1");
    assert!(signed(NOW - SIGNED_AGE_MAX_S).is_ok());
    assert!(signed(NOW + SIGNED_AGE_MAX_S).is_ok());
    assert_eq!(signed(NOW - 301), Err(Refusal::Stale { age_s: 301 }));
    assert_eq!(signed(NOW + 301), Err(Refusal::Stale { age_s: 301 }));
    // Two signatures in one header, as while a token is changed.
    let rotated = standard(NOW, &body, |pairs| pairs[2].1 = format!("v1,AAAA {}", pairs[2].1));
    assert_eq!(work(rotated), push());
    let other_id = standard(NOW, &body, |pairs| pairs[0].1 = "msg_2".into());
    assert_eq!(other_id, Err(Refusal::Wrong), "the id is signed");
    let other_time = standard(NOW - 100, &body, |pairs| pairs[1].1 = NOW.to_string());
    assert_eq!(other_time, Err(Refusal::Wrong), "the time is signed");
    let plain = standard(NOW, &body, |pairs| drop(pairs.drain(0..3)));
    assert!(matches!(plain, Err(Refusal::Missing(_))), "the plain token does not stand in: {plain:?}");
}

#[test]
fn a_wrong_or_missing_signature_is_refused_by_name_before_anything_is_read() {
    let body = b"{ this is no JSON";
    let right = hex_signature(SECRET, body);
    let try_with =
        |pairs: &[(&str, &str)]| read(Kind::GitHub, &secrets(&[SECRET]), "a/b", &headers(pairs), body, NOW);
    let missing = try_with(&[("X-GitHub-Event", "push")]).expect_err("nothing is signed");
    assert!(missing.to_string().contains("X-Hub-Signature-256"), "{missing}");
    let sha1 = try_with(&[("X-Hub-Signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6")]);
    assert!(sha1.expect_err("SHA-1 is not enough").to_string().contains("only the SHA-1"));
    for wrong in [
        String::new(),
        "sha256=".to_owned(),
        right.clone(),
        format!("sha1={right}"),
        format!("sha256={}", &right[..62]),
        format!("sha256={right}00"),
        format!("sha256={}", "0".repeat(64)),
        format!("sha256={}", hex_signature("another", body)),
        "sha256=zz".to_owned(),
    ] {
        let refused = try_with(&[("X-Hub-Signature-256", &wrong)]).expect_err(&wrong);
        assert!(matches!(refused, Refusal::Wrong | Refusal::Missing(_)), "{wrong:?}: {refused}");
    }
    let token =
        read(Kind::GitLab, &secrets(&[SECRET]), "a/b", &headers(&[("X-Gitlab-Token", "x")]), body, NOW);
    assert_eq!(token, Err(Refusal::Wrong));
    let none = read(Kind::GitLab, &[], "a/b", &headers(&[("X-Gitlab-Token", "")]), body, NOW);
    assert!(none.is_err(), "no secret is no open door");
}

#[test]
fn each_of_several_secrets_is_right_so_that_one_can_be_changed() {
    let body = filled(payload!("github-push"), &[("$REF", "refs/heads/main")]);
    let signature = format!("sha256={}", hex_signature("the one before", body.as_bytes()));
    let pairs = [("X-GitHub-Delivery", "1"), ("X-GitHub-Event", "push"), ("X-Hub-Signature-256", &signature)];
    let known = secrets(&["the new one", "the one before"]);
    assert_eq!(work(read(Kind::GitHub, &known, "acme/shop", &headers(&pairs), body.as_bytes(), NOW)), push());
}

#[test]
fn hostile_bodies_are_refused_by_name_although_they_are_signed() {
    let push = |pairs: &[(&str, &str)]| github("push", &filled(payload!("github-push"), pairs));
    for (reference, expected) in [
        ("refs/heads/-h", "ref is not a branch's name"),
        ("refs/heads/--upload-pack=touch x", "ref is not a branch's name"),
        ("refs/heads/a..b", "ref is not a branch's name"),
        ("refs/heads/x\\u0000y", "ref is not a branch's name"),
        ("refs/heads/x\\ny", "ref is not a branch's name"),
        ("refs/heads/", "ref is not a branch's name"),
        ("refs/tags/-x", "ref is not a tag's name"),
        ("refs/pull/1/head", "refs/heads/… or refs/tags/…"),
        ("main", "refs/heads/… or refs/tags/…"),
    ] {
        let error = push(&[("$REF", reference)]).expect_err(reference);
        let said = crate::hook::chain(&error);
        assert!(said.contains(expected), "{reference}: {said}");
    }
    let bad_commit = push(&[("$REF", "refs/heads/main"), (COMMIT, "HEAD")]).expect_err("no id");
    assert!(crate::hook::chain(&bad_commit).contains("after is not a commit's id"));
    let other = push(&[("$REF", "refs/heads/main"), ("acme/shop", "mallory/shop")]).expect_err("not ours");
    assert!(matches!(&other, Refusal::Malformed { why, .. } if why.is_of_another()), "{other}");
    assert!(nothing(push(&[("$REF", "refs/heads/main"), (COMMIT, &"0".repeat(40))])).contains("removed"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["", "{", "[]", "null", "7", "{\"ref\": 7}", &deep, "\u{feff}{}"] {
        let refused = github("push", body).expect_err("not what GitHub sends");
        assert!(matches!(refused, Refusal::Malformed { .. }), "{refused}");
    }
    let login = filled(payload!("github-check-run"), &[("Codertocat", "a\\u001b[2Jb")]);
    assert!(crate::hook::chain(&github("check_run", &login).expect_err("a login")).contains("sender.login"));
    // It becomes part of an address of the forge's API.
    for name in ["..", ".", "-a"] {
        let body = filled(payload!("gitea-issue-comment"), &[("$BODY", "/andon rerun"), ("$LOGIN", name)]);
        assert!(
            crate::hook::chain(&gitea("issue_comment", &body).expect_err(name))
                .contains("comment.user.login")
        );
    }
}

#[test]
fn a_delivery_without_its_id_or_event_is_refused_by_name() {
    let body = filled(payload!("github-push"), &[("$REF", "refs/heads/main")]);
    let signature = format!("sha256={}", hex_signature(SECRET, body.as_bytes()));
    let try_with = |more: &[(&str, &str)]| {
        let mut pairs = vec![("X-Hub-Signature-256", signature.as_str())];
        pairs.extend(more);
        read(Kind::GitHub, &secrets(&[SECRET]), "acme/shop", &headers(&pairs), body.as_bytes(), NOW)
    };
    assert_eq!(try_with(&[("X-GitHub-Event", "push")]), Err(Refusal::NoDelivery("X-GitHub-Delivery")));
    assert_eq!(try_with(&[("X-GitHub-Delivery", "1")]), Err(Refusal::NoEvent("X-GitHub-Event")));
    let long = "x".repeat(129);
    let refused = try_with(&[("X-GitHub-Event", "push"), ("X-GitHub-Delivery", &long)]);
    assert_eq!(refused, Err(Refusal::NoDelivery("X-GitHub-Delivery")), "an id is short");
}
