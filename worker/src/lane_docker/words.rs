//! Between the names that a test uses and those that the daemon knows, and between its lists and the lane's.
//!
//! ```text
//!   a test says `cache`      the daemon has `andon-guest0-17.cache`, labelled dev.andon.lane and dev.andon.guest
//!   a test says `bridge`     the daemon has the lane's network
//! ```
//!
//! Pure. Two lanes, and two units of one lane, never share a name.

use serde_json::{Map, Value, json};

use super::create::not_offered;
use super::refusal::Refusal;

/// On everything that tests make; its value is the unit's token.
pub(super) const GUEST_LABEL: &str = "dev.andon.guest";

/// Filters of lists that are passed on.
const FILTERS: [&str; 16] = [
    "ancestor",
    "container",
    "dangling",
    "driver",
    "event",
    "exited",
    "expose",
    "health",
    "id",
    "image",
    "label",
    "publish",
    "reference",
    "status",
    "type",
    "until",
];

/// A unit's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// Before each name, and the value of [`GUEST_LABEL`]: `andon-guest0-17`.
    pub(super) token: String,
    /// The lane's network, as the daemon calls it.
    pub(super) network: String,
}

impl Words {
    /// As the daemon has it.
    pub(super) fn inner(&self, name: &str) -> String {
        format!("{}.{name}", self.token)
    }

    /// `dev.andon.guest=TOKEN`.
    pub(super) fn label(&self) -> String {
        format!("{GUEST_LABEL}={}", self.token)
    }

    /// The same as a filter of lists.
    pub(super) fn own(&self) -> Value {
        json!({ "label": [self.label()] })
    }

    /// The filters of a list, with the lane's own label among them.
    pub(super) fn filters(&self, asked: Option<&str>) -> Result<Value, Refusal> {
        let asked: Value = match asked {
            None | Some("") => json!({}),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Refusal::bad(format!("filters {text:?} are no JSON: {error}")))?,
        };
        let mut filters = Map::new();
        for (key, values) in asked.as_object().cloned().unwrap_or_default() {
            // Older clients say {"a": {"b": true}}.
            let values: Vec<String> = match values {
                Value::Array(items) => {
                    items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
                }
                Value::Object(items) => items.keys().cloned().collect(),
                other => return Err(Refusal::bad(format!("filter {key:?}: {other} is no list"))),
            };
            let values: Vec<String> = match key.as_str() {
                "name" => values.iter().map(|name| self.name_filter(name)).collect(),
                "network" | "volume" => values.iter().map(|name| self.whole(name)).collect(),
                known if FILTERS.contains(&known) => values,
                _ => return Err(not_offered("filter", &json!(key))),
            };
            filters.insert(key, json!(values));
        }
        let own = json!(format!("{GUEST_LABEL}={}", self.token));
        match filters.get_mut("label").and_then(Value::as_array_mut) {
            Some(labels) => labels.push(own),
            None => drop(filters.insert("label".to_owned(), json!([own]))),
        }
        Ok(Value::Object(filters))
    }

    fn whole(&self, name: &str) -> String {
        if name == "bridge" { self.network.clone() } else { self.inner(name) }
    }

    /// Names are regular expressions over the daemon's names: what is bound to the start has to know what stands there.
    fn name_filter(&self, name: &str) -> String {
        if name == "bridge" {
            return self.network.clone();
        }
        match name.strip_prefix('^') {
            Some(rest) => format!("^/?{}\\.{}", self.token, rest.trim_start_matches('/')),
            None => name.trim_start_matches('/').to_owned(),
        }
    }

    /// The daemon's answer in the test's words: own prefixes go, the lane's network is called `bridge`.
    pub(super) fn outer(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(plain) = self.plain(text) {
                    *text = plain;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.outer(item)),
            Value::Object(items) => {
                let renamed: Map<String, Value> = std::mem::take(items)
                    .into_iter()
                    .filter(|(key, _)| key != GUEST_LABEL && key != crate::stack::LANE_LABEL)
                    .map(|(key, mut value)| {
                        self.outer(&mut value);
                        (self.plain(&key).unwrap_or(key), value)
                    })
                    .collect();
                *items = renamed;
            }
            _ => {}
        }
    }

    fn plain(&self, text: &str) -> Option<String> {
        if text == self.network {
            return Some("bridge".to_owned());
        }
        let (slash, name) = match text.strip_prefix('/') {
            Some(rest) => ("/", rest),
            None => ("", text),
        };
        let own = name.strip_prefix(&self.token)?.strip_prefix('.')?;
        Some(format!("{slash}{own}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words { token: "andon-guest0-1".into(), network: "andon-lane0".into() }
    }

    #[test]
    fn every_list_is_of_the_units_own() {
        let own = "dev.andon.guest=andon-guest0-1";
        assert_eq!(words().filters(None).unwrap(), json!({ "label": [own] }));
        let both = words().filters(Some(r#"{"label":{"a=b":true},"status":["running"]}"#)).unwrap();
        assert_eq!(both, json!({ "label": ["a=b", own], "status": ["running"] }));
        assert!(words().filters(Some(r#"{"since":["x"]}"#)).is_err());
        assert!(words().filters(Some("x")).is_err());
        let named = words().filters(Some(r#"{"name":["^/db$","x"]}"#)).unwrap();
        assert_eq!(named["name"], json!(["^/?andon-guest0-1\\.db$", "x"]));
    }

    #[test]
    fn answers_are_in_the_tests_words_and_foreign_names_stay() {
        let mut answer = json!({
            "Name": "/andon-guest0-1.db", "Other": "/andon-guest0-11.db",
            "Labels": { "dev.andon.guest": "x", "dev.andon.lane": "0", "mine": "1" },
            "Networks": { "andon-lane0": { "Aliases": ["andon-guest0-1.db"] }, "andon-guest0-1.net": {} }
        });
        words().outer(&mut answer);
        assert_eq!(
            answer,
            json!({
                "Name": "/db", "Other": "/andon-guest0-11.db", "Labels": { "mine": "1" },
                "Networks": { "bridge": { "Aliases": ["db"] }, "net": {} }
            })
        );
    }
}
