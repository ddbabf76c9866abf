//! In which order services start and stop.
//!
//! Pure. Invariant: a service starts when, and only when, each condition that it names holds; an order that cannot exist is
//! refused with the names in question.

use std::collections::HashMap;

use andon_proto::Service;
use andon_proto::dependency::Condition;
use thiserror::Error;

/// No order exists.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum OrderRefused {
    /// Round and round.
    #[error("services depend on each other in a circle: {}", names.join(" → "))]
    Cycle {
        /// The circle, its first name again at the end.
        names: Vec<String>,
    },
    /// A name that no service has.
    #[error("service `{service}` depends on `{dependency}`, which is not there; there are: {}", known.join(", "))]
    Unknown {
        /// Who depends.
        service: String,
        /// On what.
        dependency: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// How far a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not started.
    Waiting,
    /// Told to start.
    Starting,
    /// Its process runs, or ran.
    Started,
    /// Healthy, or completed where it is one of those that complete.
    Ready,
}

/// Who depends on whom, by place.
#[derive(Debug, Clone)]
pub struct Order {
    needs: Vec<Vec<(usize, Condition)>>,
    /// A service after everything that it needs.
    sequence: Vec<usize>,
}

impl Order {
    /// Of a stack's services.
    pub fn new(services: &[Service]) -> Result<Self, OrderRefused> {
        let places: HashMap<&str, usize> =
            services.iter().enumerate().map(|(place, service)| (service.name.as_str(), place)).collect();
        let mut needs = Vec::with_capacity(services.len());
        for service in services {
            let mut own = Vec::new();
            for dependency in &service.depends_on {
                let Some(place) = places.get(dependency.service.as_str()) else {
                    return Err(OrderRefused::Unknown {
                        service: service.name.clone(),
                        dependency: dependency.service.clone(),
                        known: services.iter().map(|service| service.name.clone()).collect(),
                    });
                };
                own.push((*place, dependency.condition()));
            }
            needs.push(own);
        }
        let mut order = Self { needs, sequence: Vec::with_capacity(services.len()) };
        let mut marks = vec![Mark::New; services.len()];
        for place in 0..services.len() {
            let mut path = Vec::new();
            if let Some(cycle) = order.visit(place, &mut marks, &mut path) {
                let names = cycle.into_iter().map(|place| services[place].name.clone()).collect();
                return Err(OrderRefused::Cycle { names });
            }
        }
        Ok(order)
    }

    /// A service after everything that it needs; the other way round is the order to stop in.
    #[must_use]
    pub fn sequence(&self) -> &[usize] {
        &self.sequence
    }

    /// Whether somebody waits for this service to complete: it is expected to end.
    #[must_use]
    pub fn completes(&self, place: usize) -> bool {
        self.needs
            .iter()
            .flatten()
            .any(|(needed, condition)| *needed == place && *condition == Condition::Completed)
    }

    /// Who may start now.
    #[must_use]
    pub fn startable(&self, stages: &[Stage]) -> Vec<usize> {
        let holds = |(needed, condition): &(usize, Condition)| match condition {
            Condition::Started => stages[*needed] >= Stage::Started,
            Condition::Healthy | Condition::Completed => stages[*needed] == Stage::Ready,
        };
        (0..stages.len())
            .filter(|place| stages[*place] == Stage::Waiting && self.needs[*place].iter().all(holds))
            .collect()
    }

    /// Depth first; the circle where there is one. Depth is bounded by the number of services.
    fn visit(&mut self, place: usize, marks: &mut [Mark], path: &mut Vec<usize>) -> Option<Vec<usize>> {
        match marks[place] {
            Mark::Done => return None,
            Mark::Open => {
                let from = path.iter().position(|seen| *seen == place).unwrap_or(0);
                let mut cycle = path[from..].to_vec();
                cycle.push(place);
                return Some(cycle);
            }
            Mark::New => {}
        }
        marks[place] = Mark::Open;
        path.push(place);
        for (needed, _) in self.needs[place].clone() {
            if let Some(cycle) = self.visit(needed, marks, path) {
                return Some(cycle);
            }
        }
        path.pop();
        marks[place] = Mark::Done;
        self.sequence.push(place);
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Dependency;
    use proptest::prelude::*;

    fn service(name: &str, needs: &[(&str, Condition)]) -> Service {
        let depends_on = needs
            .iter()
            .map(|(service, condition)| Dependency {
                service: (*service).to_owned(),
                condition: (*condition).into(),
            })
            .collect();
        Service { name: name.to_owned(), depends_on, ..Service::default() }
    }

    #[test]
    fn a_service_waits_for_each_condition_it_names() {
        let services = [
            service("app", &[("db", Condition::Healthy), ("migrate", Condition::Completed)]),
            service("db", &[]),
            service("migrate", &[("db", Condition::Started)]),
        ];
        let order = Order::new(&services).unwrap();
        assert_eq!(order.sequence(), [1, 2, 0]);
        assert!(order.completes(2) && !order.completes(1));
        use Stage::*;
        for (stages, startable) in [
            ([Waiting, Waiting, Waiting], vec![1]),
            ([Waiting, Starting, Waiting], vec![]),
            ([Waiting, Started, Waiting], vec![2]),
            ([Waiting, Started, Ready], vec![]),
            ([Waiting, Ready, Started], vec![]),
            ([Waiting, Ready, Ready], vec![0]),
        ] {
            assert_eq!(order.startable(&stages), startable, "{stages:?}");
        }
    }

    #[test]
    fn a_circle_is_refused_with_its_names() {
        let services = [
            service("a", &[("b", Condition::Started)]),
            service("b", &[("c", Condition::Started)]),
            service("c", &[("b", Condition::Healthy)]),
        ];
        let refused = Order::new(&services).unwrap_err();
        assert_eq!(refused.to_string(), "services depend on each other in a circle: b → c → b");
    }

    #[test]
    fn an_unknown_dependency_is_refused_with_what_there_is() {
        let services = [service("a", &[("dbb", Condition::Started)]), service("db", &[])];
        let refused = Order::new(&services).unwrap_err().to_string();
        assert!(refused.contains("`dbb`") && refused.ends_with("a, db"), "{refused}");
    }

    proptest! {
        #[test]
        fn every_order_without_a_circle_lets_every_service_start(edges in proptest::collection::vec((0usize..8, 0usize..8), 0..16)) {
            let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
            let mut services: Vec<Service> = names.iter().map(|name| service(name, &[])).collect();
            for (a, b) in edges {
                services[a].depends_on.push(Dependency { service: names[b].clone(), condition: Condition::Healthy.into() });
            }
            let Ok(order) = Order::new(&services) else { return Ok(()) };
            let mut stages = vec![Stage::Waiting; 8];
            let mut count = 0;
            loop {
                let next = order.startable(&stages);
                if next.is_empty() { break }
                count += next.len();
                for place in next { stages[place] = Stage::Ready; }
            }
            prop_assert_eq!(count, 8);
        }
    }
}
