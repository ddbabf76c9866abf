//! Each client tells the fake forge, and answers what the fake says as it should.

use std::sync::Arc;
use std::time::Duration;

use andon::forge::client::{Forge, HttpForge, Settings};
use andon::forge::guard::{Allowed, Guard};
use andon::forge::{Annotation, Author, ForgeError, Kind, Secret, State, Status};
use serde_json::json;

use crate::forge::{FakeForge, Instead, TOKEN};

fn client(fake: &FakeForge, kind: Kind, token: &str, checks: bool) -> HttpForge {
    let name = if kind == Kind::Forgejo { "gitea".to_owned() } else { kind.to_string() };
    let settings = Settings {
        kind,
        api: format!("http://{}/{name}", fake.address),
        repository: "acme/shop".to_owned(),
        token: Secret::new(token),
        checks,
    };
    let guard = Guard::new(vec![Allowed::parse("127.0.0.1").expect("an address")]);
    HttpForge::new(&settings, &Arc::new(guard)).expect("the settings are right")
}

fn status(state: State) -> Status {
    Status {
        commit: "a".repeat(40),
        context: "andon/unit".into(),
        state,
        description: format!("3 of 4: {}", "x".repeat(400)),
        target_url: Some("https://andon.example.org/runs/7".into()),
        annotations: (1..200)
            .map(|line| Annotation {
                path: "a/b.py".into(),
                line,
                test: "a/b.py::t".into(),
                message: "no".into(),
            })
            .collect(),
        failed: vec!["a/b.py::t".into()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_taken_by_every_forge() {
    let fake = FakeForge::start();
    for (kind, names) in [
        (Kind::GitHub, ["pending", "pending", "success", "failure", "error"]),
        (Kind::GitLab, ["pending", "running", "success", "failed", "canceled"]),
        (Kind::Gitea, ["pending", "pending", "success", "failure", "error"]),
        (Kind::Forgejo, ["pending", "pending", "success", "failure", "error"]),
    ] {
        let client = client(&fake, kind, TOKEN, false);
        let states = [State::Pending, State::Running, State::Success, State::Failure, State::Error];
        for (state, name) in states.into_iter().zip(names) {
            let told = client.report(&status(state), None).await;
            assert_eq!(told.unwrap_or_else(|error| panic!("{kind} {state:?}: {error}")), None);
            let came = fake.came().pop().expect("a request");
            assert_eq!(came.body["state"], name, "{kind}");
            assert_eq!(came.body["target_url"], "https://andon.example.org/runs/7");
            assert!(!came.path.contains(TOKEN) && !came.body.to_string().contains(TOKEN));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_gitlab_has_already_is_no_trouble() {
    let fake = FakeForge::start();
    let client = client(&fake, Kind::GitLab, TOKEN, false);
    for _ in 0..3 {
        client.report(&status(State::Running), None).await.expect("the same again");
    }
    let statuses: Vec<_> = fake.came().iter().map(|came| came.status).collect();
    assert_eq!(statuses, [201, 400, 400]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_run_is_made_once_and_brought_up_to_date_with_annotations() {
    let fake = FakeForge::start();
    let client = client(&fake, Kind::GitHub, TOKEN, true);
    let id = client.report(&status(State::Running), None).await.expect("it is made");
    assert_eq!(id.as_deref(), Some("1"));
    let again =
        client.report(&status(State::Failure), id.as_deref()).await.expect("it is brought up to date");
    assert_eq!(again, id);
    let came = fake.came();
    assert_eq!((came[0].method.as_str(), came[0].body["status"].as_str()), ("POST", Some("in_progress")));
    assert!(came[0].body["output"]["annotations"].is_null());
    assert_eq!(
        (came[1].method.as_str(), came[1].path.as_str()),
        ("PATCH", "/github/repos/acme/shop/check-runs/1")
    );
    assert_eq!(came[1].body["conclusion"], "failure");
    let annotations = came[1].body["output"]["annotations"].as_array().expect("annotations");
    assert_eq!(annotations.len(), 50, "no more than GitHub takes");
    assert_eq!(
        (&annotations[0]["path"], &annotations[0]["start_line"], &annotations[0]["annotation_level"]),
        (&json!("a/b.py"), &json!(1), &json!("failure"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_told_apart_by_what_to_do_about_them() {
    let fake = FakeForge::start();
    let client = client(&fake, Kind::GitHub, TOKEN, false);
    let ask = async |status_code: u16, headers: Vec<(&'static str, String)>| {
        fake.instead([Instead { status: status_code, headers }]);
        client.report(&status(State::Success), None).await.expect_err("it was told to fail")
    };
    let soon = |seconds: u64| {
        let now = std::process::Command::new("date").arg("+%s").output().expect("date runs").stdout;
        let now: u64 = String::from_utf8(now).expect("digits").trim().parse().expect("a number");
        (now + seconds).to_string()
    };
    assert!(matches!(ask(502, vec![]).await, ForgeError::Away { .. }));
    assert!(matches!(ask(503, vec![]).await, ForgeError::Away { .. }));
    let asked = Some(Duration::from_secs(7));
    for code in [429, 403, 503] {
        let error = ask(code, vec![("retry-after", "7".into())]).await;
        assert!(matches!(&error, ForgeError::Slower { wait, .. } if *wait == asked), "{code}: {error:?}");
    }
    let limited = vec![("x-ratelimit-remaining", "0".into()), ("x-ratelimit-reset", soon(90))];
    let ForgeError::Slower { wait: Some(wait), .. } = ask(403, limited).await else { panic!("a limit") };
    assert!((60..=90).contains(&wait.as_secs()), "{wait:?}");
    let endless = ask(429, vec![("retry-after", u64::MAX.to_string())]).await;
    assert!(
        matches!(endless, ForgeError::Slower { wait: Some(wait), .. } if wait <= Duration::from_secs(3600))
    );
    for code in [401, 403, 404] {
        assert!(matches!(ask(code, vec![]).await, ForgeError::Denied { .. }), "{code}");
    }
    for code in [400, 409, 422, 301, 302, 307] {
        let elsewhere = vec![("location", format!("http://{}/github/elsewhere", fake.address))];
        assert!(matches!(ask(code, elsewhere).await, ForgeError::Refused { .. }), "{code}");
    }
    assert!(fake.came().iter().all(|came| !came.path.contains("elsewhere")), "the token follows nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_named_and_never_shown() {
    let fake = FakeForge::start();
    for kind in [Kind::GitHub, Kind::GitLab, Kind::Gitea] {
        let client = client(&fake, kind, "wr0ng-token", false);
        let error = client.report(&status(State::Success), None).await.expect_err("it is wrong");
        let said = format!("{error} {error:?}");
        assert!(said.contains("Bad credentials") && !said.contains("wr0ng"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_not_there_or_inside_is_away() {
    let fake = FakeForge::start();
    let address = fake.address;
    let settings = Settings {
        kind: Kind::GitHub,
        api: format!("http://{address}/github"),
        repository: "acme/shop".into(),
        token: Secret::new(TOKEN),
        checks: false,
    };
    let guarded = HttpForge::new(&settings, &Arc::new(Guard::default())).expect("the settings are right");
    let error = guarded.report(&status(State::Success), None).await.expect_err("it is inside");
    assert!(error.to_string().contains("a loopback address"), "{error}");
    let named = Settings { api: format!("http://localhost:{}/github", address.port()), ..settings.clone() };
    let guarded = HttpForge::new(&named, &Arc::new(Guard::default())).expect("the settings are right");
    let error = guarded.report(&status(State::Success), None).await.expect_err("it is inside, by name");
    assert!(error.to_string().contains("a loopback address"), "{error}");
    assert!(fake.came().is_empty(), "nobody was asked");
    for api in ["http://git.example.org", "https://me:secret@h/x", "ftp://h", "x"] {
        let wrong = HttpForge::new(&Settings { api: api.into(), ..settings.clone() }, &Arc::default());
        let said = wrong.err().expect(api).to_string();
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_give_commands_is_asked_by_the_accounts_number() {
    let fake = FakeForge::start();
    let ann = Author { name: "ann".into(), id: 11 };
    for kind in [Kind::GitLab, Kind::Gitea] {
        assert!(!client(&fake, kind, TOKEN, false).may(&ann).await.expect("an answer"), "{kind}");
    }
    fake.let_write(11);
    for kind in [Kind::GitLab, Kind::Gitea] {
        let client = client(&fake, kind, TOKEN, false);
        assert!(client.may(&ann).await.expect("an answer"), "{kind}");
        let other = Author { name: "ann".into(), id: 12 };
        assert!(!client.may(&other).await.expect("an answer"), "{kind}: another account of that name");
        fake.instead([Instead { status: 404, headers: vec![] }]);
        assert!(!client.may(&ann).await.expect("an answer"), "{kind}: nobody knows them");
        fake.instead([Instead { status: 500, headers: vec![] }]);
        assert!(client.may(&ann).await.is_err(), "{kind}: not known is not a no");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pull_requests_are_listed_with_their_heads() {
    let fake = FakeForge::start();
    fake.open_pull(7, &"a".repeat(40), false);
    fake.open_pull(8, &"b".repeat(40), true);
    for kind in [Kind::GitHub, Kind::GitLab, Kind::Gitea, Kind::Forgejo] {
        let open = client(&fake, kind, TOKEN, false).open_pulls().await.expect("a list");
        let open: Vec<_> = open.into_iter().map(|pull| (pull.number, pull.commit, pull.fork)).collect();
        assert_eq!(open, [(7, "a".repeat(40), false), (8, "b".repeat(40), true)], "{kind}");
    }
}
