//! Every page over a history that was made, by real requests to the real router, without a network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use andon_core::Config;
use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Verdict};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::blobs::Blobs;
use crate::driver::Farm;
use crate::owning::Owning;
use crate::roles::{Role, Tokens};
use crate::rpc::Reruns;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::views::{Views, entering};
use crate::web::{Access, State, router, unknown};

#[path = "../../../examples/dashboard/made.rs"]
mod made;

const TOKEN: &str = "client-token-of-the-pages";
const VIEWER: &str = "viewer-token-of-the-pages";
const DEVELOPER: &str = "developer-token-of-the-pages";
/// Long after the history's own first day, and all of it within the days that pages show.
const NOW_UNIX_MS: u64 = 1_800_000_000_000;

/// A store with these runs, entered into the ledger.
async fn stored(records: Vec<Vec<Record>>) -> Arc<Memory> {
    let store = Arc::new(Memory::default());
    // At once: this store copies itself for each transaction.
    store.apply(&records.concat()).await.expect("the records are taken");
    let folder = tempfile::tempdir().expect("a folder");
    let owning = Owning::new(blobs(folder.path()));
    while entering::step(&*store, &owning, |_| ()).await.expect("runs are entered") > 0 {}
    store
}

/// With the specifications of the made history.
fn blobs(state: &Path) -> Blobs {
    made::put_blobs(state).expect("blobs are written");
    Blobs::open(state.join("blobs")).expect("a folder for blobs")
}

/// The made history. No test changes it, so that one is enough for all.
async fn history() -> Arc<Memory> {
    static HISTORY: OnceCell<Arc<Memory>> = OnceCell::const_new();
    Arc::clone(HISTORY.get_or_init(|| stored(made::history(NOW_UNIX_MS))).await)
}

struct Dashboard {
    router: Router,
    farm: Farm,
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Dashboard {
    async fn over(store: Arc<Memory>, is_loopback: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = blobs(folder.path());
        let stop = CancellationToken::new();
        let farm = Farm::start(store, blobs, Config::default(), stop.clone()).await.expect("the farm starts");
        let tokens =
            Tokens::new([(Role::Admin, TOKEN), (Role::Viewer, VIEWER), (Role::Developer, DEVELOPER)]);
        let state = State {
            views: Views::of(&farm),
            meters: Arc::clone(&farm.meters),
            access: Access::new(tokens, is_loopback, farm.clock),
            reruns: Reruns::new(farm.clone()),
            stop,
        };
        Self { router: router(state).fallback(unknown), farm, _folder: folder }
    }

    async fn made() -> Self {
        Self::over(history().await, true).await
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("a router answers");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole answer").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).header("host", "localhost").body(Body::empty()).expect("a request")).await
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.text
    }
}

/// Links of a page that stay on this farm.
fn links(html: &str) -> BTreeSet<String> {
    let of = |name: &str| {
        html.split(&format!(" {name}=\""))
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(unescaped)
            .collect::<Vec<_>>()
    };
    [of("href"), of("src")].concat().into_iter().filter(|link| link.starts_with('/')).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&amp;", "&").replace("&#39;", "'").replace("&#34;", "\"")
}

/// Pages of one kind that are looked at.
const ALIKE_MAX: usize = 12;

/// What addresses of one kind of page share: all but names that hold a digit, and the query.
fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let parts =
        path.split('/').map(|part| if part.contains(|c: char| c.is_ascii_digit()) { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// What the Content-Security-Policy would refuse, and what no page may hold.
fn assert_strict(path: &str, html: &str) {
    assert!(html.starts_with("<!doctype html>"), "{path}");
    assert!(html.trim_end().ends_with("</html>"), "{path}");
    for banned in [" style=", "<style", " onclick=", "javascript:"] {
        assert!(!html.contains(banned), "{path} has {banned}");
    }
    for script in html.split("<script").skip(1) {
        assert!(
            script.starts_with(" src=\"/assets/"),
            "{path}: a script of its own: {}",
            &script[..40.min(script.len())]
        );
    }
    assert!(
        !html.chars().any(|c| andon_figures::text::is_unsafe(c) && c != '\n'),
        "{path} has characters that hide"
    );
}

#[tokio::test]
async fn no_link_of_any_page_leads_nowhere_and_every_page_is_strict() {
    let dashboard = Dashboard::made().await;
    let (mut seen, mut queue) = (BTreeSet::new(), VecDeque::from(["/".to_owned()]));
    let mut alike: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(path) = queue.pop_front() {
        let bare = path.split('#').next().unwrap_or_default().to_owned();
        let looked_at = alike.entry(shape(&bare)).or_default();
        if *looked_at >= ALIKE_MAX || !seen.insert(bare.clone()) {
            continue;
        }
        *looked_at += 1;
        let answer = dashboard.get(&bare).await;
        if bare.starts_with("/workers/") {
            // None is connected here: the page says so.
            assert!(
                answer.text.contains("has connected since the coordinator started"),
                "{bare}: {}",
                answer.text
            );
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{bare}: {}", answer.text);
        let kind = answer.headers[header::CONTENT_TYPE].to_str().expect("text");
        if kind.starts_with("text/html") {
            assert_strict(&bare, &answer.text);
            queue.extend(links(&answer.text));
        }
    }
    let families = [
        "/projects/shop",
        "/projects/shop/owners/%40acme%2Fcheckout",
        "/runs/",
        "/workers",
        "/baselines/",
        "/commits/",
        "/assets/",
    ];
    for family in families {
        assert!(seen.iter().any(|path| path.starts_with(family)), "nothing leads to {family}");
    }
    assert!(
        seen.iter().any(|path| path.ends_with("/log")) && seen.iter().any(|path| path.ends_with("/history"))
    );
}

#[tokio::test]
async fn two_clicks_lead_from_a_red_commit_to_the_line_of_log_that_explains_it() {
    let dashboard = Dashboard::made().await;
    let project = dashboard.page("/projects/shop").await;
    let red = project.split("data-mark=\"failed").nth(1).expect("a red commit is marked");
    let first =
        links(red.split("</tr>").next().expect("a row")).into_iter().find(|link| link.ends_with("#failures"));
    let run = dashboard.page(first.expect("its verdict is a link").trim_end_matches("#failures")).await;
    let second = links(&run).into_iter().find(|link| link.ends_with("/log#why")).expect("a link to the line");
    let log = dashboard.page(second.trim_end_matches("#why")).await;
    let line =
        log.split("id=\"why\">").nth(1).and_then(|rest| rest.split('<').next()).expect("the line is marked");
    assert!(line.contains("assert Decimal("), "{line}");
}

#[tokio::test]
async fn pages_say_what_they_are_about_without_any_script() {
    let dashboard = Dashboard::made().await;
    let run = dashboard.page("/runs/72").await;
    for said in [
        "failed",
        "What failed",
        "andon rerun 72 --failed",
        "Lanes over time",
        "What lanes were busy with",
        " of lane time: tests ",
        "tests/integration/test_cart.py",
    ] {
        assert!(run.contains(said), "the run's page does not say {said}");
    }
    let line = dashboard.page("/").await;
    for said in ["The line", "Projects", "shop", "billing", "Last runs"] {
        assert!(line.contains(said), "the first page does not say {said}");
    }
    let project = dashboard.page("/projects/shop?ref=refs/heads/main&days=30").await;
    for said in [
        "Throughput per commit",
        "data-series=",
        "Lead time",
        "data-mark=\"baseline\"",
        "Suites",
        "aria-label=\"tests ",
    ] {
        assert!(project.contains(said), "the project's page does not say {said}");
    }
    let flaky = dashboard.page("/projects/shop/test?suite=integration&id=tests/integration/test_stock.py::TestStock::test_is_refused_without_stock[2]").await;
    for said in ["Flake rate", "95 %", "History", "data-series=\"ms\"", "lane time a run: tests "] {
        assert!(flaky.contains(said), "the test's page does not say {said}");
    }
    let baselines = links(&dashboard.page("/baselines").await);
    let key =
        baselines.iter().find(|link| link.starts_with("/baselines/c20b")).expect("the baseline is listed");
    let baseline = dashboard.page(key).await;
    for said in [
        "Bill of materials",
        "mysql:9.7",
        "python3 -m db.migrate",
        "com.acme.team",
        "https://git.example/acme/shop.git",
    ] {
        assert!(baseline.contains(said), "the baseline's page does not say {said}");
    }
}

#[tokio::test]
async fn failures_flakes_and_slow_tests_are_told_with_their_owners_and_owners_have_a_page() {
    let dashboard = Dashboard::made().await;
    let run = dashboard.page("/runs/72").await;
    let failure = run.split("id=\"test-3\"").nth(1).and_then(|rest| rest.split("</article>").next());
    let failure = failure.expect("test 3 failed there");
    for owner in ["@acme/checkout", "@mira"] {
        assert!(failure.contains(&format!(">{owner}</a>")), "{owner}: {failure}");
    }
    assert!(!failure.contains("@acme/shop"), "a later line of CODEOWNERS says otherwise: {failure}");
    let link = links(failure).into_iter().find(|link| link.contains("/owners/")).expect("a link");
    assert_eq!(link, "/projects/shop/owners/%40acme%2Fcheckout");

    let list = dashboard.page("/projects/shop/owners").await;
    for owner in ["@acme/checkout", "@acme/shop", "@acme/warehouse", "@mira", "payments@acme.example"] {
        assert!(list.contains(&format!(">{owner}</a>")), "{owner}: {list}");
    }
    let section = |page: &str, id: &str| {
        let of = page.split(&format!("<section id=\"{id}\"")).nth(1).expect("the section is there");
        of.split("</section>").next().expect("it ends").to_owned()
    };
    let checkout = dashboard.page(&link).await;
    assert!(section(&checkout, "slow").contains("test_payments.py"), "{checkout}");
    assert!(!section(&checkout, "slow").contains("test_stock.py"), "not theirs");
    let warehouse = dashboard.page("/projects/shop/owners/%40acme%2Fwarehouse?ref=main&days=366").await;
    assert!(section(&warehouse, "flaky").contains("test_stock.py"), "{warehouse}");
    let history = "/projects/shop/test?suite=integration&id=tests/integration/test_stock.py::TestStock::test_adds_up[0]";
    assert!(dashboard.page(history).await.contains("Owned by "));
    let nobody = dashboard.get("/projects/shop/owners/%40nobody").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    assert_eq!(dashboard.get("/projects/none/owners").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_not_there_has_a_page_that_says_so() {
    let dashboard = Dashboard::made().await;
    let missing = [
        "/nowhere",
        "/runs/9999",
        "/runs/x",
        "/runs/1/tests/99999",
        "/runs/1/tests/0/attempts/777/log",
        "/projects/none",
        "/workers/none",
        "/baselines/none",
        "/commits/ffffffffffff",
        "/projects/%ff",
        "/assets/0000/app.css",
        "/runs/18446744073709551616",
    ];
    for path in missing {
        let answer = dashboard.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.text);
        if !path.starts_with("/assets/") {
            assert_strict(path, &answer.text);
            assert!(answer.text.contains("<h1>There is no such page</h1>"), "{path}");
        }
    }
    for path in ["/projects/shop?days=x", "/runs/1/tests?verdict=green", "/find?q=hello", "/runs?after=1"] {
        let answer = dashboard.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text);
        assert_strict(path, &answer.text);
    }
}

#[tokio::test]
async fn the_find_box_leads_to_runs_and_commits() {
    let dashboard = Dashboard::made().await;
    let leads = async |q: &str| {
        let answer = dashboard.get(&format!("/find?q={q}")).await;
        (answer.status, answer.headers.get(header::LOCATION).map(|to| to.to_str().expect("text").to_owned()))
    };
    assert_eq!(leads("%2312").await, (StatusCode::SEE_OTHER, Some("/runs/12".to_owned())));
    assert_eq!(leads("DEADBEEF").await, (StatusCode::SEE_OTHER, Some("/commits/deadbeef".to_owned())));
    assert_eq!(leads("//evil.example").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn browsers_are_told_to_run_nothing_else_and_to_keep_assets_for_good() {
    let dashboard = Dashboard::made().await;
    for path in ["/", "/runs/1", "/nowhere"] {
        let headers = dashboard.get(path).await.headers;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
        assert_eq!(headers[header::CACHE_CONTROL], "private, no-cache");
    }
    let page = dashboard.page("/projects/shop").await;
    let assets: Vec<_> = links(&page).into_iter().filter(|link| link.starts_with("/assets/")).collect();
    assert!(assets.len() >= 6, "{assets:?}");
    for asset in assets {
        let answer = dashboard.get(&asset).await;
        assert_eq!(answer.status, StatusCode::OK, "{asset}");
        assert!(
            answer.headers[header::CACHE_CONTROL].to_str().expect("text").contains("immutable"),
            "{asset}"
        );
    }
}

/// A run whose every name tries to break out.
fn hostile(name: &str) -> Vec<Vec<Record>> {
    let run = RunId(1);
    let (attempt, test) = (AttemptId(1), TestIx(0));
    let lease = Lease { run, work: WorkId(1), fence: Fence(1) };
    let header = RunHeader {
        project: "hostile".into(),
        repository: name.into(),
        commit: "c0ffee00c0ffee00".into(),
        git_ref: format!("refs/heads/{name}"),
        requested_by: name.into(),
        ..RunHeader::default()
    };
    let log = format!("before\n{name}\nafter\n");
    let ended = Ended {
        run_ms: 5,
        log_zstd: zstd::bulk::compress(log.as_bytes(), 1).expect("it compresses"),
        started_unix_ms: 1_700_000_000_000,
        driver: name.into(),
        ..Ended::without_report(Outcome::Failed, name)
    };
    let moved = |state| Record::RunMoved { run, state, reason: name.into(), at_unix_ms: 1_700_000_001_000 };
    let worker = WorkerId(name.into());
    vec![vec![
        Record::RunCreated { run, header, at_unix_ms: 1_700_000_000_000 },
        Record::TestsAdded { run, suite: name.into(), tests: vec![(test, name.into())] },
        moved(RunState::Running),
        Record::Noted { run, text: name.into(), log_zstd: Vec::new(), at_unix_ms: 1_700_000_000_000 },
        Record::Leased {
            lease,
            kind: LeaseKind::Unit,
            worker,
            lane: LaneIx(0),
            attempts: vec![(attempt, test, 1)],
        },
        Record::AttemptEnded { run, attempt, ended, at_unix_ms: 1_700_000_000_500 },
        Record::VerdictGiven { run, test, verdict: Verdict::Failed, run_ms: Some(5) },
        Record::LeaseClosed { fence: lease.fence },
        moved(RunState::Ended(RunEnd::Failed)),
    ]]
}

const OF_A_RUN: [&str; 9] = [
    "/",
    "/projects/hostile",
    "/projects/hostile/owners",
    "/runs/1",
    "/runs/1/tests",
    "/runs/1/tests/0",
    "/runs/1/tests/0/history",
    "/runs/1/log",
    "/runs/1/tests/0/attempts/1/log",
];

#[tokio::test]
async fn markup_escapes_and_reversals_in_names_and_logs_are_inert_on_every_page() {
    let name = "</title><img src=x onerror=alert(1)>\"'><script>alert(2)</script>\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}gnp\u{200b}";
    let dashboard = Dashboard::over(stored(hostile(name)).await, true).await;
    for path in OF_A_RUN {
        let html = dashboard.page(path).await;
        assert_strict(path, &html);
        for escaped in ["<img", "onerror=alert(1)>", "alert(2)<"] {
            assert!(!html.contains(escaped), "{path} has {escaped}");
        }
    }
    let log = dashboard.page("/runs/1/tests/0/attempts/1/log").await;
    assert!(log.contains("\\x1b]0;owned\\x07") && log.contains("\\u{202e}"), "what hides is shown");
}

#[tokio::test]
async fn a_name_of_a_megabyte_is_cut_everywhere() {
    let dashboard = Dashboard::over(stored(hostile(&"<b>&\u{202e}x".repeat(120_000))).await, true).await;
    for path in OF_A_RUN {
        let html = dashboard.page(path).await;
        assert!(html.len() < 400_000, "{path}: {} bytes", html.len());
    }
}

fn form(path: &str, fields: &str, with: &[(&str, &str)]) -> Request<Body> {
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let mut request = Request::post(path).header("host", "farm.example").header(kind.0, kind.1);
    for (name, value) in with {
        request = request.header(*name, *value);
    }
    request.body(Body::from(fields.to_owned())).expect("a request")
}

fn from_outside(path: &str, cookie: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "farm.example").header("cookie", cookie);
    request.body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn elsewhere_a_browser_signs_in_looks_and_signs_out() {
    let dashboard = Dashboard::over(history().await, false).await;
    let turned_away = dashboard.ask(from_outside("/runs/12?x=1", "")).await;
    assert_eq!(turned_away.status, StatusCode::SEE_OTHER);
    assert_eq!(turned_away.headers[header::LOCATION], "/sign-in?next=%2Fruns%2F12%3Fx%3D1");
    let sign_in = dashboard.ask(from_outside("/sign-in?next=%2Fruns%2F12", "")).await;
    assert_eq!(sign_in.status, StatusCode::OK);
    assert_strict("/sign-in", &sign_in.text);
    assert!(!sign_in.text.contains("/workers"), "who may not look is not shown the way");
    for asset in links(&sign_in.text).iter().filter(|link| link.starts_with("/assets/")) {
        assert_eq!(dashboard.ask(from_outside(asset, "")).await.status, StatusCode::OK, "{asset}");
    }
    assert_eq!(dashboard.ask(from_outside("/api/v1/overview", "")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(dashboard.ask(from_outside("/metrics", "")).await.status, StatusCode::UNAUTHORIZED);

    let wrong = dashboard.ask(form("/sign-in", "token=not-the-token-of-this&next=%2F", &[])).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert!(wrong.text.contains("not a token") && !wrong.headers.contains_key(header::SET_COOKIE));
    assert!(!wrong.text.contains("not-the-token-of-this"), "what was shown is not sent back");
    let fields = format!("token={TOKEN}&next=%2Fruns%2F12");
    let foreign = dashboard.ask(form("/sign-in", &fields, &[("sec-fetch-site", "cross-site")])).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{}", foreign.text);

    let right = dashboard.ask(form("/sign-in", &fields, &[])).await;
    assert_eq!(right.status, StatusCode::SEE_OTHER);
    assert_eq!(right.headers[header::LOCATION], "/runs/12");
    let set = right.headers[header::SET_COOKIE].to_str().expect("text").to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().expect("a cookie").to_owned();
    let page = dashboard.ask(from_outside("/runs/12", &cookie)).await;
    assert_eq!(page.status, StatusCode::OK);

    let csrf = page.text.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let csrf = csrf.expect("a page of a session can end it");
    let with = [("cookie", cookie.as_str())];
    let forged = dashboard.ask(form("/sign-out", "csrf=forged", &with)).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    assert_eq!(dashboard.ask(from_outside("/runs/12", &cookie)).await.status, StatusCode::OK);
    let out = dashboard.ask(form("/sign-out", &format!("csrf={csrf}"), &with)).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    assert_eq!(dashboard.ask(from_outside("/runs/12", &cookie)).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_page_of_another_site_that_leads_to_loopback_sees_nothing() {
    let dashboard = Dashboard::made().await;
    assert_eq!(dashboard.ask(from_outside("/runs/1", "")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(dashboard.ask(from_outside("/api/v1/overview", "")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_run_that_is_over_is_told_once_and_then_that_it_was_all() {
    let dashboard = Dashboard::made().await;
    let told = dashboard.page("/runs/12/live").await;
    assert_eq!(told.matches("event: part\n").count(), 1, "{told}");
    assert!(told.contains("id=\"part-progress\"") && told.trim_end().ends_with("data: over"), "{told}");
    assert_eq!(dashboard.get("/runs/9999/live").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_first_page_is_told_to_who_follows_it_until_the_coordinator_stops() {
    let dashboard = Dashboard::made().await;
    let stop = dashboard.farm.stop.clone();
    let request = Request::get("/live").header("host", "localhost").body(Body::empty()).expect("a request");
    let mut body = dashboard.router.clone().oneshot(request).await.expect("a router answers").into_body();
    let first = body.frame().await.expect("a first event").expect("no error").into_data().expect("data");
    assert!(String::from_utf8_lossy(&first).contains("part-line"));
    stop.cancel();
    while let Some(frame) = body.frame().await {
        frame.expect("it ends well");
    }
}

/// What the form of a page that leads there carries, as the fields of a request; `None` where there is no such form.
fn hidden(html: &str, action: &str) -> Option<String> {
    let form = html.split(&format!("action=\"{action}\">")).nth(1)?.split("</form>").next()?;
    let field = |part: &str| {
        let (name, rest) = part.split_once("\" value=\"")?;
        Some(format!("{name}={}", rest.split('"').next()?))
    };
    Some(form.split("name=\"").skip(1).filter_map(field).collect::<Vec<_>>().join("&"))
}

/// A history of its own, as a rerun adds to it.
async fn with_reruns(is_loopback: bool) -> Dashboard {
    Dashboard::over(stored(made::history(NOW_UNIX_MS)).await, is_loopback).await
}

fn at_home(path: &str, fields: &str, with: &[(&str, &str)]) -> Request<Body> {
    let mut request = form(path, fields, with);
    request.headers_mut().insert("host", "localhost".parse().expect("a header's value"));
    request
}

#[tokio::test]
async fn what_failed_and_a_single_test_are_run_again_from_their_pages_once_a_form() {
    let dashboard = with_reruns(true).await;
    let of_run = hidden(&dashboard.page("/runs/72").await, "/runs/72/rerun").expect("a button");
    let ours = [("sec-fetch-site", "same-origin")];
    let answer = dashboard.ask(at_home("/runs/72/rerun", &of_run, &ours)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let new = answer.headers[header::LOCATION].to_str().expect("text").to_owned();
    let page = dashboard.page(&new).await;
    assert!(
        page.contains("a rerun of <a href=\"/runs/72\">run 72</a>") && page.contains("rerun, dashboard"),
        "{page}"
    );
    assert!(page.contains("all 4 tests"), "what failed, and nothing else: {page}");
    let twice = dashboard.ask(at_home("/runs/72/rerun", &of_run, &ours)).await;
    assert_eq!(twice.headers[header::LOCATION], new.as_str(), "a form that is sent twice asks once");

    let of_test = hidden(&dashboard.page("/runs/72/tests/5").await, "/runs/72/rerun").expect("a button");
    assert!(of_test.ends_with("&test=5"), "{of_test}");
    let answer = dashboard.ask(at_home("/runs/72/rerun", &of_test, &ours)).await;
    let one = answer.headers[header::LOCATION].to_str().expect("text").to_owned();
    assert_ne!(one, new);
    assert!(dashboard.page(&one).await.contains("all 1 tests"));

    assert_eq!(hidden(&dashboard.page("/runs/1").await, "/runs/1/rerun"), None, "nothing failed there");
    let nothing = of_run.replace("once=", "once=x");
    let nothing = dashboard.ask(at_home("/runs/1/rerun", &nothing[..nothing.len() - 1], &ours)).await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST, "{}", nothing.text);
    assert!(nothing.text.contains("Run 1 has no such tests to run again."), "{}", nothing.text);
    let missing = dashboard.ask(at_home("/runs/9999/rerun", &of_run, &ours)).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "{}", missing.text);
}

#[tokio::test]
async fn on_loopback_another_site_cannot_have_anything_run() {
    let dashboard = with_reruns(true).await;
    let fields = hidden(&dashboard.page("/runs/72").await, "/runs/72/rerun").expect("a button");
    let refused = async |request: Request<Body>| {
        let answer = dashboard.ask(request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
    };
    refused(at_home("/runs/72/rerun", &fields, &[("sec-fetch-site", "cross-site")])).await;
    refused(at_home("/runs/72/rerun", &fields, &[("sec-fetch-site", "same-site")])).await;
    refused(at_home("/runs/72/rerun", &fields, &[("origin", "https://evil.example")])).await;
    refused(at_home("/runs/72/rerun", "once=1", &[("sec-fetch-site", "same-origin")])).await;
    refused(at_home("/runs/72/rerun", "csrf=guessed&once=1", &[])).await;
    // Under another name of this machine nobody is known at all.
    let rebound = dashboard.ask(form("/runs/72/rerun", &fields, &[])).await;
    assert_eq!(rebound.status, StatusCode::UNAUTHORIZED);
    assert_eq!(dashboard.get("/runs/72/rerun").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let runs = dashboard.farm.store.runs(&crate::store::RunFilter { limit: 1, ..Default::default() }).await;
    assert_eq!(runs.expect("it lists")[0].run, RunId(74), "nothing was started");
}

#[tokio::test]
async fn elsewhere_a_developer_reruns_and_a_viewer_only_looks() {
    let dashboard = with_reruns(false).await;
    let signed_in = async |token: &str| {
        let answer = dashboard.ask(form("/sign-in", &format!("token={token}&next=%2F"), &[])).await;
        let set = answer.headers[header::SET_COOKIE].to_str().expect("text").to_owned();
        set.split(';').next().expect("a cookie").to_owned()
    };
    let developer = signed_in(DEVELOPER).await;
    let page = dashboard.ask(from_outside("/runs/72", &developer)).await;
    let fields = hidden(&page.text, "/runs/72/rerun").expect("a button");
    let viewer = signed_in(VIEWER).await;
    let page = dashboard.ask(from_outside("/runs/72", &viewer)).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(hidden(&page.text, "/runs/72/rerun"), None, "no button for who may not");
    assert!(page.text.contains("andon rerun 72 --failed"));

    let word = page.text.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let own = format!("csrf={}&once=1", word.expect("a session can end"));
    let refused = dashboard.ask(form("/runs/72/rerun", &own, &[("cookie", &viewer)])).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text.contains("A viewer may look, and run nothing"), "{}", refused.text);
    assert_strict("/runs/72/rerun", &refused.text);
    let stolen = dashboard.ask(form("/runs/72/rerun", &fields, &[("cookie", &viewer)])).await;
    assert_eq!(stolen.status, StatusCode::FORBIDDEN, "another session's word");
    let answer = dashboard.ask(form("/runs/72/rerun", &fields, &[("cookie", &developer)])).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
}
