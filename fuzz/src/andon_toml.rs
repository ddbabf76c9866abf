//! `andon.toml`: what is taken is in bounds, stays the same with a comment at its end, and is taken by the JSON schema; what is refused is
//! refused with places.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use andon::config::{Config, FILE_NAME, Image, RepoPath, SUITES_MAX, TIMEOUT_MAX, is_name, parse, schema};
use jsonschema::Validator;
use serde_json::Value;

use crate::said;

/// See the module.
pub fn check(input: &[u8]) {
    match parse(FILE_NAME, input) {
        Ok((config, notes)) => {
            said::notes(&notes, input);
            in_bounds(&config);
            said::bounded(format!("{config:?}").len(), input, 64, 16 * 1024);
            let mut longer = input.to_vec();
            longer.extend_from_slice(b"\n# the end\n");
            assert_eq!(
                parse(FILE_NAME, &longer).map(|(config, _)| config),
                Ok(config),
                "a comment changes it"
            );
            taken_by_the_schema(input);
        }
        Err(errors) => said::problems(&errors, input),
    }
}

fn in_bounds(config: &Config) {
    assert!((1..=SUITES_MAX).contains(&config.suites.len()));
    let names: BTreeSet<&str> = config.suites.iter().map(|suite| suite.name.as_str()).collect();
    assert_eq!(names.len(), config.suites.len(), "two suites of one name");
    for suite in &config.suites {
        assert!(is_name(&suite.name), "{:?}", suite.name);
        assert!(suite.timeout > Duration::ZERO && suite.timeout <= TIMEOUT_MAX, "{:?}", suite.timeout);
        assert!(suite.workdir.starts_with('/'), "{:?}", suite.workdir);
        assert!(
            suite.env.is_sorted()
                && suite.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('='))
        );
        match &suite.image.value {
            Image::Reference(name) => assert!(!name.is_empty() && !name.starts_with('-'), "{name:?}"),
            Image::Build(build) => [&build.context, &build.dockerfile].into_iter().for_each(beneath),
        }
    }
    config.compose.iter().for_each(|path| beneath(&path.value));
}

/// A path stays beneath the root of the repository.
pub(crate) fn beneath(path: &RepoPath) {
    let path = path.as_str();
    assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."), "{path:?}");
}

/// Editors underline nothing that the parser takes.
fn taken_by_the_schema(input: &[u8]) {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    let validator = VALIDATOR.get_or_init(|| {
        let schema: Value = serde_json::from_str(schema::SCHEMA).expect("the schema is JSON");
        jsonschema::draft7::new(&schema).expect("the schema is one")
    });
    let text = std::str::from_utf8(input).expect("what was parsed is text");
    let document: Value = toml::from_str(text).expect("what was parsed is TOML");
    let refused =
        validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).next();
    assert_eq!(refused, None, "the schema refuses what the parser takes");
}
