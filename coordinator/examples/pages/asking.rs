//! Every page and every address of the JSON API, asked over HTTP again and again with other runs, tests and projects each time, and how long
//! each took from the question to the last byte.

use std::time::Instant;

use andon_core::ids::RunId;
use andon_figures::made::TestAt;
use serde::Serialize;
use serde_json::Value;

use crate::Failure;
use crate::history::{History, key, project_name, suite_name, test_name};

/// What one kind of question took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Took {
    /// Its address, with names in place of what varies.
    pub(crate) route: &'static str,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Of the median answer.
    pub(crate) bytes: u64,
}

/// What is asked of: one run and one of its tests.
struct Sample {
    project: String,
    suite: String,
    test_id: String,
    run: RunId,
    commit: String,
    baseline: String,
    test: u64,
    attempt: u64,
}

type Route = (&'static str, fn(&Sample) -> String);

const ROUTES: &[Route] = &[
    ("/", |_| "/".to_owned()),
    ("/projects", |_| "/projects".to_owned()),
    ("/projects/{project}", |of| format!("/projects/{}", of.project)),
    ("/projects/{project}?ref=main&days=366", |of| format!("/projects/{}?ref=main&days=366", of.project)),
    ("/projects/{project}?before={run}", |of| format!("/projects/{}?before={}", of.project, of.run.0 + 1)),
    ("/projects/{project}/test?suite={suite}&id={id}", |of| {
        format!("/projects/{}/test?{}", of.project, of.named())
    }),
    ("/projects/{project}/owners", |of| format!("/projects/{}/owners", of.project)),
    ("/runs", |_| "/runs".to_owned()),
    ("/runs?before={run}", |of| format!("/runs?before={}", of.run.0 + 1)),
    ("/runs/{run}", |of| format!("/runs/{}", of.run.0)),
    ("/runs/{run}/log", |of| format!("/runs/{}/log", of.run.0)),
    ("/runs/{run}/tests", |of| format!("/runs/{}/tests", of.run.0)),
    ("/runs/{run}/tests?verdict=failed", |of| format!("/runs/{}/tests?verdict=failed", of.run.0)),
    ("/runs/{run}/tests?suite={suite}&after={test}", |of| {
        format!("/runs/{}/tests?suite={}&after={}", of.run.0, of.suite, of.test)
    }),
    ("/runs/{run}/tests/{test}", |of| format!("/runs/{}/tests/{}", of.run.0, of.test)),
    ("/runs/{run}/tests/{test}/history", |of| format!("/runs/{}/tests/{}/history", of.run.0, of.test)),
    ("/runs/{run}/tests/{test}/attempts/{attempt}/log", |of| {
        format!("/runs/{}/tests/{}/attempts/{}/log", of.run.0, of.test, of.attempt)
    }),
    ("/commits/{commit}", |of| format!("/commits/{}", &of.commit[..12])),
    ("/find?q={commit}", |of| format!("/find?q={}", &of.commit[..12])),
    ("/baselines", |_| "/baselines".to_owned()),
    ("/baselines/{key}", |of| format!("/baselines/{}", of.baseline)),
    ("/workers", |_| "/workers".to_owned()),
    ("/metrics", |_| "/metrics".to_owned()),
    ("/api/v1/overview", |_| "/api/v1/overview".to_owned()),
    ("/api/v1/runs", |_| "/api/v1/runs?limit=200".to_owned()),
    ("/api/v1/runs/{run}", |of| format!("/api/v1/runs/{}", of.run.0)),
    ("/api/v1/runs/{run}/log", |of| format!("/api/v1/runs/{}/log", of.run.0)),
    ("/api/v1/runs/{run}/timeline", |of| format!("/api/v1/runs/{}/timeline", of.run.0)),
    ("/api/v1/runs/{run}/tests", |of| format!("/api/v1/runs/{}/tests?limit=200", of.run.0)),
    ("/api/v1/runs/{run}/tests/{test}", |of| format!("/api/v1/runs/{}/tests/{}", of.run.0, of.test)),
    ("/api/v1/runs/{run}/tests/{test}/log", |of| format!("/api/v1/runs/{}/tests/{}/log", of.run.0, of.test)),
    ("/api/v1/commits/{commit}", |of| format!("/api/v1/commits/{}", &of.commit[..12])),
    ("/api/v1/projects/{project}", |of| {
        format!("/api/v1/projects/{}?ref=main&days=366&limit=200", of.project)
    }),
    ("/api/v1/projects/{project}/test", |of| {
        format!("/api/v1/projects/{}/test?{}&limit=200", of.project, of.named())
    }),
    ("/api/v1/projects/{project}/owners", |of| format!("/api/v1/projects/{}/owners", of.project)),
    ("/api/v1/baselines", |_| "/api/v1/baselines".to_owned()),
    ("/api/v1/baselines/{key}", |of| format!("/api/v1/baselines/{}", of.baseline)),
    ("/api/v1/workers", |_| "/api/v1/workers".to_owned()),
    ("/api/v1/openapi.json", |_| "/api/v1/openapi.json".to_owned()),
];

impl Sample {
    fn named(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("suite", &self.suite).append_pair("id", &self.test_id).finish()
    }
}

/// A coordinator, over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    client: reqwest::Client,
    url: String,
}

impl Asked {
    pub(crate) fn new(url: String) -> Result<Self, Failure> {
        let plain = reqwest::redirect::Policy::none();
        Ok(Self { client: reqwest::Client::builder().no_proxy().redirect(plain).build()?, url })
    }

    /// The body of an answer that is one.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if status.is_success() || status.is_redirection() {
            return Ok(body.to_vec());
        }
        Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)).into())
    }

    pub(crate) async fn json(&self, path: &str) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    /// Each question so many times, with samples spread over the whole history.
    pub(crate) async fn all(&self, history: &History, times: usize) -> Result<Vec<Took>, Failure> {
        let mut samples = Vec::with_capacity(times);
        for number in 0..times {
            samples.push(self.sample(history, number, times).await?);
        }
        let mut all = Vec::with_capacity(ROUTES.len());
        for (route, path) in ROUTES {
            all.push(self.timed(route, samples.iter().map(path)).await?);
        }
        Ok(all)
    }

    /// Runs at even distances, of each another test. Runs that were stopped halfway have none of the later ones.
    async fn sample(&self, history: &History, number: usize, of: usize) -> Result<Sample, Failure> {
        let at = number * history.order.len() / of;
        let (project, commit) = history.order[at];
        let model = history.world.model();
        let (suite, test) = (number % model.suites.div_ceil(2), number * 31 % (model.tests / 2).max(1));
        let place = TestAt { project, suite, test };
        let (run, test) = (RunId(at as u64 + 1), suite * model.tests + test);
        let attempts = self.json(&format!("/api/v1/runs/{}/tests/{test}", run.0)).await?;
        let attempt = attempts["all_attempts"][0]["attempt"].as_u64();
        let made = history.world.run(project, commit);
        Ok(Sample {
            project: project_name(project),
            suite: suite_name(suite),
            test_id: test_name(place),
            run,
            commit: made.commit_name,
            baseline: key(&made.baseline),
            test: test as u64,
            attempt: attempt.ok_or_else(|| format!("run {} has no attempt of test {test}", run.0))?,
        })
    }

    async fn timed(&self, route: &'static str, paths: impl Iterator<Item = String>) -> Result<Took, Failure> {
        let (mut times, mut sizes) = (Vec::new(), Vec::new());
        for path in paths {
            let began = Instant::now();
            let body = self.get(&path).await?;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
            sizes.push(body.len() as u64);
        }
        times.sort_by(f64::total_cmp);
        sizes.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
            (times[place - 1] * 100.0).round() / 100.0
        };
        Ok(Took { route, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0), bytes: sizes[sizes.len() / 2] })
    }
}
