//! How a service's health is found out: the check, wrapped so that one exec waits inside the container.
//!
//! Pure. The wrapped form needs `sh` in the image; where there is none the check is run again and again from outside.

use std::time::Duration;

use andon_proto::Healthcheck;

use crate::engine::ImageHealthcheck;

/// The least time that a service has to become healthy.
pub(crate) const HEALTH_LIMIT_MIN: Duration = Duration::from_secs(60);
/// The most.
pub(crate) const HEALTH_LIMIT_MAX: Duration = Duration::from_secs(1800);
/// Between two checks, in seconds as `sleep` takes them.
const PAUSE_S: &str = "0.02";
/// Compose's defaults.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const RETRIES_DEFAULT: u32 = 3;

/// A check to be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The check's own words.
    pub argv: Vec<String>,
    /// Healthy by then, or not at all.
    pub limit: Duration,
}

impl Probe {
    /// The service's own check, else the image's, else none.
    #[must_use]
    pub fn of(own: Option<&Healthcheck>, image: Option<&ImageHealthcheck>) -> Option<Self> {
        let image_test = image.map(|check| check.test.as_slice()).unwrap_or_default();
        let test = match own {
            Some(own) if !own.test.is_empty() => own.test.as_slice(),
            _ => image_test,
        };
        let ms = |own: u64, image: Duration| if own > 0 { Duration::from_millis(own) } else { image };
        let image = image.cloned().unwrap_or_default();
        let own = own.cloned().unwrap_or_default();
        let argv = words(test)?;
        let interval = or(ms(own.interval_ms, image.interval), INTERVAL_DEFAULT);
        let timeout = or(ms(own.timeout_ms, image.timeout), INTERVAL_DEFAULT);
        let retries = [own.retries, image.retries].into_iter().find(|n| *n > 0).unwrap_or(RETRIES_DEFAULT);
        let patience = (interval.saturating_add(timeout)).saturating_mul(retries.saturating_add(1));
        let limit = ms(own.start_period_ms, image.start_period).saturating_add(patience);
        Some(Self { argv, limit: limit.clamp(HEALTH_LIMIT_MIN, HEALTH_LIMIT_MAX) })
    }

    /// One command that ends when the check succeeds.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let script = format!("until \"$@\"; do sleep {PAUSE_S} 2>/dev/null || sleep 1; done");
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()];
        words.extend(self.argv.iter().cloned());
        words
    }
}

fn or(given: Duration, default: Duration) -> Duration {
    if given.is_zero() { default } else { given }
}

fn words(test: &[String]) -> Option<Vec<String>> {
    let (kind, rest) = test.split_first()?;
    match kind.as_str() {
        "NONE" => None,
        "CMD-SHELL" => Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")]),
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD" => None,
        // Docker takes a list without a kind as a command.
        _ => Some(test.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn check(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|word| (*word).to_owned()).collect(), ..Healthcheck::default() }
    }

    #[test]
    fn a_services_own_check_goes_before_the_images_and_none_means_none() {
        let image =
            ImageHealthcheck { test: vec!["CMD".into(), "image".into()], ..ImageHealthcheck::default() };
        let argv = |own: Option<&Healthcheck>| Probe::of(own, Some(&image)).map(|probe| probe.argv);
        assert_eq!(argv(None), Some(vec!["image".to_owned()]));
        assert_eq!(argv(Some(&check(&["CMD", "a", "b c"]))), Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(argv(Some(&check(&["NONE"]))), None);
        assert_eq!(Probe::of(None, None), None);
    }

    #[test]
    fn the_limit_comes_from_the_check_and_stays_within_bounds() {
        let mut own = check(&["CMD", "true"]);
        (own.interval_ms, own.timeout_ms, own.retries, own.start_period_ms) = (10_000, 5_000, 9, 30_000);
        assert_eq!(Probe::of(Some(&own), None).unwrap().limit, Duration::from_secs(180));
        own.interval_ms = u64::MAX;
        assert_eq!(Probe::of(Some(&own), None).unwrap().limit, HEALTH_LIMIT_MAX);
        (own.interval_ms, own.timeout_ms, own.start_period_ms) = (1, 1, 0);
        assert_eq!(Probe::of(Some(&own), None).unwrap().limit, HEALTH_LIMIT_MIN);
    }

    #[test]
    fn the_waiting_form_ends_when_the_check_first_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("echo x >> {0}/n; test $(wc -l < {0}/n) -ge 3", dir.path().display());
        for own in [check(&["CMD-SHELL", &script]), check(&["CMD", "sh", "-c", &script])] {
            std::fs::write(dir.path().join("n"), "").unwrap();
            let words = Probe::of(Some(&own), None).unwrap().waiting();
            assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success());
            assert_eq!(std::fs::read_to_string(dir.path().join("n")).unwrap(), "x\nx\nx\n");
        }
    }

    #[test]
    fn words_with_spaces_and_quotes_reach_the_check_unchanged() {
        let own = check(&["CMD", "test", "it's a \"word\"", "=", "it's a \"word\""]);
        let words = Probe::of(Some(&own), None).unwrap().waiting();
        assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success());
    }
}
