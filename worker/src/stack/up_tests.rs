//! Starting, waiting and stopping, on an engine in memory.

use super::*;
use crate::engine::fake::{FakeEngine, Script};
use crate::engine::{ContainerSpec, ImageInfo};
use crate::hands::ResolvedImage;
use andon_proto::dependency::Condition;
use andon_proto::{Dependency, Healthcheck, Service, Stack};

fn service(name: &str, needs: &[(&str, Condition)], check: bool) -> Service {
    let depends_on = needs.iter().map(|(service, condition)| Dependency {
        service: (*service).to_owned(),
        condition: (*condition).into(),
    });
    let test = vec!["CMD".to_owned(), "ready".to_owned()];
    Service {
        name: name.to_owned(),
        depends_on: depends_on.collect(),
        healthcheck: check.then(|| Healthcheck { test, ..Healthcheck::default() }),
        ..Service::default()
    }
}

async fn stack(engine: &FakeEngine, services: Vec<Service>) -> (StackPlan, Vec<String>) {
    engine.add_image("i", ImageInfo { id: "i".into(), ..ImageInfo::default() });
    let image = ResolvedImage { id: "i".into(), reference: "i".into(), build_key: String::new() };
    let images = vec![(image, ImageInfo::default()); services.len()];
    let plan = StackPlan::new(&Stack { services, ..Stack::default() }, &images).unwrap();
    let mut containers = Vec::new();
    for service in &plan.services {
        let spec =
            ContainerSpec { name: service.name.clone(), image: "i".into(), ..ContainerSpec::default() };
        containers.push(engine.create_container(&spec).await.unwrap());
    }
    engine.clear_calls();
    (plan, containers)
}

fn starts(engine: &FakeEngine) -> Vec<String> {
    engine.calls().into_iter().filter(|call| call.starts_with("start ")).collect()
}

#[tokio::test]
async fn services_start_in_the_order_of_their_conditions() {
    let engine = FakeEngine::new();
    let services = vec![
        service("app", &[("migrate", Condition::Completed)], true),
        service("db", &[], true),
        service("migrate", &[("db", Condition::Healthy)], false),
    ];
    let (plan, containers) = stack(&engine, services).await;
    engine.on_start(|spec| (spec.name == "migrate").then(|| Script::code(0)));
    bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap();
    assert_eq!(starts(&engine), ["start db", "start migrate", "start app"]);
}

#[tokio::test]
async fn on_a_clone_what_completed_is_not_run_again() {
    let engine = FakeEngine::new();
    let services =
        vec![service("migrate", &[], false), service("app", &[("migrate", Condition::Completed)], false)];
    let (plan, containers) = stack(&engine, services).await;
    bring_up(engine.as_ref(), &plan, &containers, Completing::Done).await.unwrap();
    assert_eq!(starts(&engine), ["start app"]);
}

#[tokio::test]
async fn a_service_that_dies_while_it_is_waited_for_is_reported_with_its_code_and_log() {
    let engine = FakeEngine::new();
    let (plan, containers) = stack(&engine, vec![service("db", &[], true)]).await;
    engine.on_start(|_| Some(Script { stdout: "no space\n".into(), exit_code: 3, ..Script::default() }));
    let fault = bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap_err();
    assert_eq!(fault.to_string(), "service `db` ended with exit code 3\nno space");
    assert_eq!(fault.into_failure().class, andon_proto::work_failed::Class::Baseline);
}

#[tokio::test]
async fn a_check_is_run_from_outside_where_the_image_has_no_shell() {
    let engine = FakeEngine::new();
    let (plan, containers) = stack(&engine, vec![service("db", &[], true)]).await;
    let mut calls = 0;
    engine.on_exec(move |_, spec| {
        calls += 1;
        match spec.argv[0].as_str() {
            "sh" => Script::code(127),
            _ => Script::code(i64::from(calls < 4)),
        }
    });
    bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap();
}

#[tokio::test]
async fn a_missing_daemon_is_the_farms_fault_and_a_bad_command_the_projects() {
    use andon_proto::work_failed::Class;
    let unreachable =
        EngineError::Unreachable { what: "start".into(), address: "a".into(), message: "gone".into() };
    let refused = EngineError::Refused { what: "start".into(), status: 400, message: "no such file".into() };
    for (error, class) in [(unreachable, Class::Infrastructure), (refused, Class::Baseline)] {
        let engine = FakeEngine::new();
        let (plan, containers) = stack(&engine, vec![service("db", &[], false)]).await;
        engine.fail_next("start db", error);
        let fault = bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap_err();
        assert_eq!(fault.into_failure().class, class);
    }
}

#[tokio::test]
async fn dependents_stop_before_what_they_need_and_a_bad_end_is_a_fault() {
    let engine = FakeEngine::new();
    let (plan, containers) =
        stack(&engine, vec![service("db", &[], false), service("app", &[("db", Condition::Started)], false)])
            .await;
    bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap();
    stop_cleanly(engine.as_ref(), &plan, &containers).await.unwrap();
    let stops: Vec<String> = engine.calls().into_iter().filter(|call| call.starts_with("stop")).collect();
    assert_eq!(stops, ["stop app", "stop db"]);
    engine.end_container("app", 2, false);
    let fault = stop_cleanly(engine.as_ref(), &plan, &containers).await.unwrap_err();
    assert!(fault.to_string().starts_with("service `app` ended with exit code 2"), "{fault}");
}

#[tokio::test]
async fn killing_all_is_fine_with_what_does_not_run() {
    let engine = FakeEngine::new();
    let (plan, containers) = stack(&engine, vec![service("a", &[], false), service("b", &[], false)]).await;
    bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap();
    engine.end_container("a", 0, false);
    kill_all(engine.as_ref(), &containers).await.unwrap();
    for call in ["kill b", "wait b"] {
        bring_up(engine.as_ref(), &plan, &containers, Completing::Run).await.unwrap();
        engine.fail_next(call, EngineError::NotFound { what: call.into(), message: "gone".into() });
        kill_all(engine.as_ref(), &containers).await.unwrap();
    }
    let refused = EngineError::Refused { what: "kill".into(), status: 500, message: "no".into() };
    engine.fail_next("kill b", refused);
    kill_all(engine.as_ref(), &containers).await.unwrap_err();
}

#[test]
fn a_stop_signals_own_exit_code_is_no_fault() {
    assert_eq!(signal_exit("SIGTERM"), Some(143));
    assert_eq!(signal_exit("int"), Some(130));
    assert_eq!(signal_exit("9"), Some(137));
    assert_eq!(signal_exit("SIGWHAT"), None);
}
