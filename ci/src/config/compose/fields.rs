//! Reads one map of a compose file key by key, and keeps what is wrong with each.
//!
//! The compose file's counterpart of `config::table`. Values are interpolated here and nowhere else. A key that is
//! not asked for is refused by name.

use std::rc::Rc;
use std::time::Duration;

use super::super::measure;
use super::super::problem::{Findings, Located, Place, nearest, quoted};
use super::interpolate;
use super::words;
use super::yaml::{Entry, Node, Value};

/// The most items of a list.
const ITEMS_MAX: usize = 256;

/// One map, its name for messages, and the keys that have been asked for.
pub(crate) struct Fields<'n> {
    /// `service "db"`.
    title: String,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
    /// Where the map begins.
    pub(crate) place: Place,
}

impl<'n> Fields<'n> {
    /// The fields of a node; none where it holds nothing, a problem where it is not a map.
    pub(crate) fn of(findings: &mut Findings<'_>, title: String, node: &'n Node) -> Self {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                findings.problem(node.place.clone(), format!("{title} must be a map, not {}", node.kind()));
                &[]
            }
        };
        Self { title, entries, asked: Vec::new(), place: node.place.clone() }
    }

    pub(crate) fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn node(&mut self, key: &'static str) -> Option<&'n Rc<Node>> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A text; a problem where nothing or something else is written.
    pub(crate) fn text(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<Located<String>> {
        let node = self.node(key)?;
        let text = text(findings, key, node)?;
        if text.value.trim().is_empty() {
            findings.problem(text.place, format!("{key:?} is empty"));
            return None;
        }
        Some(text)
    }

    pub(crate) fn bool(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        let text = text(findings, key, node)?;
        match text.value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let message = format!("{key:?} is {}: write true or false", quoted(other));
                findings.problem(text.place, message);
                None
            }
        }
    }

    pub(crate) fn number(&mut self, findings: &mut Findings<'_>, key: &'static str, max: u32) -> Option<u32> {
        let node = self.node(key)?;
        let text = text(findings, key, node)?;
        let number = text.value.parse::<u32>().ok().filter(|number| *number <= max);
        if number.is_none() {
            let message = format!("{key:?} is {}: write a whole number from 0 to {max}", quoted(&text.value));
            findings.problem(text.place, message);
        }
        number
    }

    pub(crate) fn duration(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        max: Duration,
    ) -> Option<Duration> {
        let node = self.node(key)?;
        let text = text(findings, key, node)?;
        let duration = measure::duration(&text.value).filter(|duration| *duration <= max);
        if duration.is_none() {
            let (form, hours) = (measure::DURATION_FORM, max.as_secs() / 3600);
            let message = format!("{key:?} is {}: write {form}, at most {hours}h", quoted(&text.value));
            findings.problem(text.place, message);
        }
        duration
    }

    pub(crate) fn bytes(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<u64> {
        let node = self.node(key)?;
        let text = text(findings, key, node)?;
        let bytes = measure::bytes(&text.value);
        if bytes.is_none() {
            let message = format!("{key:?} is {}: write {}", quoted(&text.value), measure::BYTES_FORM);
            findings.problem(text.place, message);
        }
        bytes
    }

    /// A list of texts; absent is `None`.
    pub(crate) fn texts(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Option<Vec<Located<String>>> {
        let node = self.node(key)?;
        items(findings, key, node)
            .map(|items| items.iter().filter_map(|item| text(findings, key, item)).collect())
    }

    /// A text or a list of texts.
    pub(crate) fn text_or_texts(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Option<Vec<Located<String>>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar(_) => Some(text(findings, key, node).into_iter().collect()),
            _ => self.texts(findings, key),
        }
    }

    /// A command: a list of words, or a line that is cut as a shell would. `null` keeps the image's own.
    pub(crate) fn argv(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<Vec<String>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Null => None,
            Value::Scalar(_) => {
                let line = text(findings, key, node)?;
                match words::split(&line.value) {
                    Ok(words) => Some(words),
                    Err(error) => {
                        findings.problem(line.place, format!("{key:?} {error}"));
                        None
                    }
                }
            }
            _ => self.texts(findings, key).map(|texts| texts.into_iter().map(|text| text.value).collect()),
        }
    }

    /// `KEY=value` as a list or as a map, sorted by key.
    pub(crate) fn pairs(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Vec<(Located<String>, String)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let mut pairs: Vec<(Located<String>, String)> = Vec::new();
        if let Value::Map(entries) = &node.value {
            for entry in entries {
                let name = Located { value: entry.key.clone(), place: entry.place.clone() };
                if matches!(entry.value.value, Value::Null) {
                    no_value(findings, key, &name);
                } else if let Some(text) = text(findings, &entry.key, &entry.value) {
                    pairs.push((name, text.value));
                }
            }
        } else {
            for item in items(findings, key, node).unwrap_or_default() {
                let Some(text) = text(findings, key, item) else { continue };
                let (name, value) = match text.value.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (text.value.as_str(), None),
                };
                let name = Located { value: name.to_owned(), place: text.place };
                match value {
                    Some(value) => pairs.push((name, value.to_owned())),
                    None => no_value(findings, key, &name),
                }
            }
        }
        if pairs.len() > ITEMS_MAX {
            findings.problem(node.place.clone(), format!("{key:?} has more than {ITEMS_MAX} entries"));
        }
        pairs.sort_by(|left, right| left.0.value.cmp(&right.0.value));
        if let Some([_, twice]) = pairs.windows(2).find(|pair| pair[0].0.value == pair[1].0.value) {
            let message = format!("{} is twice in {key:?}", quoted(&twice.0.value));
            findings.problem(twice.0.place.clone(), message);
        }
        pairs
    }

    /// A key that is taken and has no effect.
    pub(crate) fn ignored(&mut self, findings: &mut Findings<'_>, key: &'static str, why: &str) {
        if let Some(entry) = self.entry(key) {
            findings.note(entry.place.clone(), format!("{key:?} has no effect: {why}"));
        }
    }

    /// Refuses every key that nobody asked for; `instead` says what to do about some of them.
    pub(crate) fn finish(self, findings: &mut Findings<'_>, instead: &[(&str, &str)]) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.asked.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let mut message = format!("{} of {} is not supported", quoted(key), self.title);
            if let Some((_, advice)) = instead.iter().find(|(known, _)| *known == key) {
                message.push_str(&format!(": {advice}"));
            } else if let Some(near) = nearest(key, &self.asked) {
                message.push_str(&format!(", did you mean {near:?}?"));
            }
            findings.problem(entry.place.clone(), message);
        }
    }
}

fn no_value(findings: &mut Findings<'_>, key: &str, name: &Located<String>) {
    let why = match key {
        "environment" | "args" => "it would come from the machine's environment; write the value",
        _ => "write the value",
    };
    let message = format!("{} in {key:?} has no value: {why}", quoted(&name.value));
    findings.problem(name.place.clone(), message);
}

/// A scalar's text, interpolated.
pub(crate) fn text(findings: &mut Findings<'_>, key: &str, node: &Node) -> Option<Located<String>> {
    let Value::Scalar(text) = &node.value else {
        let message = format!("{} must be a text, not {}", quoted(key), node.kind());
        findings.problem(node.place.clone(), message);
        return None;
    };
    if text.contains('\0') {
        findings.problem(node.place.clone(), format!("{} contains a NUL character", quoted(key)));
        return None;
    }
    match interpolate::defaults(text) {
        Ok(value) => Some(Located { value, place: node.place.clone() }),
        Err(error) => {
            findings.problem(node.place.clone(), format!("{}: {error}", quoted(key)));
            None
        }
    }
}

/// A list's items.
pub(crate) fn items<'n>(findings: &mut Findings<'_>, key: &str, node: &'n Node) -> Option<&'n [Rc<Node>]> {
    match &node.value {
        Value::List(items) if items.len() <= ITEMS_MAX => Some(items),
        Value::List(_) => {
            findings.problem(node.place.clone(), format!("{} has more than {ITEMS_MAX} items", quoted(key)));
            None
        }
        Value::Null => Some(&[]),
        _ => {
            let message = format!("{} must be a list, not {}", quoted(key), node.kind());
            findings.problem(node.place.clone(), message);
            None
        }
    }
}
