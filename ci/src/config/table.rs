//! Reads one table of a TOML document key by key, and keeps what is wrong with each.
//!
//! Knows TOML's types, not Andon's keys. A key that is read is known; whatever is left at the end is not.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::measure;
use super::problem::{Findings, Located, Place, choices, nearest, quoted};

/// The most items of a list.
pub(super) const ITEMS_MAX: usize = 1000;

type Value<'i> = Spanned<DeValue<'i>>;

/// One table, its name for messages, and the keys that have been asked for.
pub(crate) struct Table<'t, 'i> {
    /// As written: `[[suite]]`; empty for the top of the file.
    title: &'static str,
    table: &'t DeTable<'i>,
    place: Place,
    asked: Vec<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(crate) fn new(title: &'static str, table: &'t DeTable<'i>, place: Place) -> Self {
        Self { title, table, place, asked: Vec::new() }
    }

    /// Where the table begins.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Whether the key is written at all, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Where the key stands.
    pub(crate) fn place_of(&self, findings: &Findings<'_>, key: &str) -> Place {
        match self.table.get_key_value(key) {
            Some((key, _)) => findings.place(key.span().start),
            None => self.place(),
        }
    }

    /// Reports that a key is not there, unless a misspelling of it is, which will be reported as such.
    pub(crate) fn require(&mut self, findings: &mut Findings<'_>, key: &'static str, message: &str) {
        // A key that is known is no misspelling of another, however near: `runner` is not `run`.
        let misspelt = |(name, _): (&Spanned<std::borrow::Cow<'_, str>>, &Value<'_>)| {
            !self.asked.contains(&name.get_ref().as_ref()) && nearest(name.get_ref(), &[key]).is_some()
        };
        if !self.has(key) && !self.table.iter().any(misspelt) {
            findings.problem(self.place(), message);
        }
        self.value(key);
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.get(key)
    }

    /// A value of any type.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        self.value(key)
    }

    pub(crate) fn string(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Option<Located<String>> {
        let value = self.value(key)?;
        string(findings, key, value)
    }

    /// A string with something in it.
    pub(crate) fn text(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<Located<String>> {
        let text = self.string(findings, key)?;
        if text.value.trim().is_empty() {
            findings.problem(text.place, format!("{key:?} is empty"));
            return None;
        }
        Some(text)
    }

    pub(crate) fn bool(&mut self, findings: &mut Findings<'_>, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            wrong_type(findings, key, value, "true or false");
        }
        found
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = self.value(key)?;
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type(findings, key, value, &expected);
            return None;
        };
        let digits = integer.as_str();
        match u32::from_str_radix(digits, integer.radix()).ok().filter(|number| bounds.contains(number)) {
            Some(number) => Some(number),
            None => {
                let place = findings.place(value.span().start);
                findings.problem(
                    place,
                    format!("{key:?} is {}: write {expected}", shorten(&integer.to_string())),
                );
                None
            }
        }
    }

    /// A duration that is neither zero nor longer than `max`.
    pub(crate) fn duration(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        max: Duration,
    ) -> Option<Duration> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            wrong_type(findings, key, value, measure::DURATION_FORM);
            return None;
        };
        let place = findings.place(value.span().start);
        let Some(duration) = measure::duration(text) else {
            let form = measure::DURATION_FORM;
            findings.problem(place, format!("{key:?} is {}: write {form}", quoted(text)));
            return None;
        };
        // Whole milliseconds are what the farm counts in.
        if duration.as_millis() == 0 || duration > max {
            let hours = max.as_secs() / 3600;
            findings.problem(place, format!("{key:?} is {}: at least 1ms, at most {hours}h", quoted(text)));
            return None;
        }
        Some(duration)
    }

    /// One word of a fixed choice.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        of: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.string(findings, key)?;
        if let Some((_, value)) = of.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let words: Vec<&str> = of.iter().map(|(word, _)| *word).collect();
        let message = format!("{key:?} is {}: write {}", quoted(&text.value), choices(&words));
        findings.problem(text.place, message);
        None
    }

    /// A list of strings; an absent one is `None`.
    pub(crate) fn strings(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Option<Vec<Located<String>>> {
        let value = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(findings, key, value, "a list of strings");
            return None;
        };
        if let Some(beyond) = items.get(ITEMS_MAX) {
            let place = findings.place(beyond.span().start);
            findings.problem(place, format!("{key:?} has more than {ITEMS_MAX} items"));
        }
        Some(items.iter().take(ITEMS_MAX).filter_map(|item| string(findings, key, item)).collect())
    }

    /// A table of strings, sorted by key; an absent one is empty.
    pub(crate) fn string_map(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
    ) -> Vec<(Located<String>, String)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(findings, key, value, "a table of strings");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let place = findings.place(name.span().start);
            let name = name.get_ref().to_string();
            if let Some(value) = string(findings, &name, value) {
                pairs.push((Located { value: name, place }, value.value));
            }
        }
        pairs
    }

    /// A table below this one.
    pub(crate) fn table(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Option<Table<'t, 'i>> {
        let value = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(findings, key, value, &format!("a table: {title}"));
            return None;
        };
        let place = self.place_of(findings, key);
        Some(Table::new(title, table, place))
    }

    /// The tables of an array of tables, `[[key]]`.
    pub(crate) fn tables(
        &mut self,
        findings: &mut Findings<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(findings, key, value, &format!("a list of tables, each under {title}"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let place = findings.place(item.span().start);
                    tables.push(Table::new(title, table, place));
                }
                None => wrong_type(findings, key, item, &format!("a table under {title}")),
            }
        }
        tables
    }

    /// Reports every key that nobody asked for. `elsewhere` says in which table a known key belongs.
    pub(crate) fn finish(self, findings: &mut Findings<'_>, elsewhere: &[(&str, &[&str])]) {
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let place = findings.place(key.span().start);
            let mut message = format!("unknown key {}", quoted(name));
            if !self.title.is_empty() {
                message.push_str(&format!(" in {}", self.title));
            }
            let home = elsewhere.iter().find(|(title, keys)| *title != self.title && keys.contains(&name));
            if let Some(near) = nearest(name, &self.asked) {
                message.push_str(&format!(", did you mean {near:?}?"));
            } else if let Some((title, _)) = home {
                message.push_str(&format!(", it belongs in {title}"));
            } else {
                message.push_str(&format!("; known are {}", choices(&self.asked).replace(" or ", " and ")));
            }
            findings.problem(place, message);
        }
    }
}

fn shorten(digits: &str) -> &str {
    digits.get(..40).unwrap_or(digits)
}

fn string(findings: &mut Findings<'_>, key: &str, value: &Value<'_>) -> Option<Located<String>> {
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(findings, key, value, "a string");
        return None;
    };
    let place = findings.place(value.span().start);
    if text.contains('\0') {
        findings.problem(place, format!("{} contains a NUL character", quoted(key)));
        return None;
    }
    Some(Located { value: text.to_owned(), place })
}

/// "must be …, not …".
pub(crate) fn wrong_type(findings: &mut Findings<'_>, key: &str, value: &Value<'_>, expected: &str) {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let place = findings.place(value.span().start);
    findings.problem(place, format!("{} must be {expected}, not {found}", quoted(key)));
}
