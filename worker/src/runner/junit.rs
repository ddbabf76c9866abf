//! Reads JUnit XML as tools really write it, into flat cases.
//!
//! Pure, lenient about what tools disagree on (a bare `<testsuite>` root, nested suites, `time="1,234.5"`, `<error>` beside
//! `<failure>`, bad characters, a file that stops half-way), strict about what costs memory: size, depth, number and length of
//! things are limited, and no entity is ever expanded beyond the five of XML and characters by number.

mod encoding;
#[cfg(test)]
mod real;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use thiserror::Error;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Most cases.
pub const CASES_MAX: usize = 400_000;
/// Longest text kept of one element, in bytes; the rest is dropped.
const TEXT_BYTES_MAX: usize = 128 * 1024;
/// Longest attribute kept, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;
/// What cases may take from the suites around them, in bytes: each of them has their names, which stand in the file once.
const INHERITED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The file cannot be used.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum JunitRefused {
    /// It is too deep.
    #[error("the JUnit file nests deeper than {DEPTH_MAX} elements")]
    TooDeep,
    /// It has too many cases.
    #[error("the JUnit file has more than {CASES_MAX} cases")]
    TooMany,
    /// It has long names of suites for many cases.
    #[error(
        "the JUnit file's cases take more than {INHERITED_BYTES_MAX} bytes of names and files from their suites"
    )]
    TooMuch,
    /// It declares a document type, which only an attack does.
    #[error("the JUnit file has a DOCTYPE, which is refused")]
    Doctype,
    /// There is no case in it that can be read.
    #[error("the JUnit file cannot be read: {0}")]
    Malformed(String),
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaseOutcome {
    /// Nothing else was said.
    Passed,
    /// `<skipped>`.
    Skipped,
    /// `<failure>` or `<error>`.
    Failed,
}

/// One `<testcase>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `name`.
    pub name: String,
    /// `classname`.
    pub classname: String,
    /// `file`, its own or the suite's.
    pub file: String,
    /// Name of the innermost suite.
    pub suite: String,
    /// `time`, in milliseconds.
    pub ms: u64,
    /// How it ended.
    pub outcome: CaseOutcome,
    /// `message` of what made it so.
    pub message: String,
    /// Text of failure or error, then `system-out` and `system-err`.
    pub log: String,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// In the file's order.
    pub cases: Vec<Case>,
    /// The file is broken after the last case.
    pub cut_short: bool,
}

/// Reads a whole file's bytes.
pub fn read(bytes: &[u8]) -> Result<Report, JunitRefused> {
    let text = encoding::decode(bytes);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let mut walk = Walk::default();
    loop {
        match reader.read_event() {
            Ok(Event::Eof) => {
                walk.report.cut_short |= !walk.path.is_empty();
                break;
            }
            Ok(event) => walk.take(&event)?,
            Err(error) if walk.report.cases.is_empty() => {
                return Err(JunitRefused::Malformed(error.to_string()));
            }
            Err(_) => {
                walk.report.cut_short = true;
                break;
            }
        }
    }
    if !walk.seen_root {
        return Err(JunitRefused::Malformed("there is no element in it".to_owned()));
    }
    Ok(walk.report)
}

/// Which element text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    Fault,
    Skipped,
    /// A failure of a try that was not the last: what the case amounts to is said beside it.
    Retried,
    SystemOut,
    SystemErr,
    Other,
}

#[derive(Default)]
struct Walk {
    report: Report,
    path: Vec<Element>,
    /// Name and file of the suites around.
    suites: Vec<(String, String)>,
    /// What the cases so far have of it, in bytes.
    inherited: usize,
    case: Option<Case>,
    /// `status` of the case, which some tools write beside the elements and some instead of them.
    status: String,
    text: String,
    seen_root: bool,
}

impl Walk {
    fn take(&mut self, event: &Event<'_>) -> Result<(), JunitRefused> {
        match event {
            Event::Start(start) => self.open(start)?,
            Event::Empty(start) => {
                self.open(start)?;
                self.close()?;
            }
            Event::End(_) => self.close()?,
            Event::Text(text) => self.push_text(&text.xml10_content()),
            Event::CData(text) => self.push_text(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref() {
                    Ok(found) => found,
                    Err(_) => Some('\u{fffd}'),
                };
                match character {
                    Some(character) => self.push_text(character.encode_utf8(&mut [0; 4])),
                    None => self.push_text(named(reference).unwrap_or("\u{fffd}")),
                }
            }
            Event::DocType(_) => return Err(JunitRefused::Doctype),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Eof => {}
        }
        Ok(())
    }

    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), JunitRefused> {
        if self.path.len() >= DEPTH_MAX {
            return Err(JunitRefused::TooDeep);
        }
        self.seen_root = true;
        let name: &str = start.local_name().into_inner();
        let element = match name.to_ascii_lowercase().as_str() {
            "testsuite" => Element::Suite,
            "testcase" if self.case.is_none() => Element::Case,
            "failure" | "error" if self.case.is_some() => Element::Fault,
            "skipped" | "ignored" | "disabled" if self.case.is_some() => Element::Skipped,
            "flakyfailure" | "flakyerror" | "rerunfailure" | "rerunerror" if self.case.is_some() => {
                Element::Retried
            }
            // Surefire's, within a try.
            "stacktrace" if self.path.last() == Some(&Element::Retried) => Element::Retried,
            "system-out" => Element::SystemOut,
            "system-err" => Element::SystemErr,
            _ => Element::Other,
        };
        match element {
            Element::Suite => self.suites.push((attribute(start, "name"), attribute(start, "file"))),
            Element::Case => {
                let case = self.new_case(start)?;
                self.case = Some(case);
                self.status = attribute(start, "status").to_ascii_lowercase();
            }
            Element::Fault => {
                let message = attribute(start, "message");
                if let Some(case) = &mut self.case {
                    if case.outcome != CaseOutcome::Failed || case.message.is_empty() {
                        case.message = message;
                    }
                    case.outcome = CaseOutcome::Failed;
                }
            }
            Element::Skipped => {
                let message = attribute(start, "message");
                if let Some(case) = self.case.as_mut().filter(|case| case.outcome == CaseOutcome::Passed) {
                    // ctest says the same of a test that is to be skipped and of one that cannot be started.
                    let amiss =
                        self.status == "notrun" && !message.is_empty() && !message.starts_with("SKIP_");
                    case.outcome = if amiss { CaseOutcome::Failed } else { CaseOutcome::Skipped };
                    case.message = message;
                }
            }
            Element::Retried | Element::SystemOut | Element::SystemErr | Element::Other => {}
        }
        self.text.clear();
        self.path.push(element);
        Ok(())
    }

    fn new_case(&mut self, start: &BytesStart<'_>) -> Result<Case, JunitRefused> {
        let mut file = attribute(start, "file");
        let mut suite = String::new();
        if let Some((name, around)) = self.suites.last() {
            let more = name.len() + if file.is_empty() { around.len() } else { 0 };
            self.inherited += more;
            if self.inherited > INHERITED_BYTES_MAX {
                return Err(JunitRefused::TooMuch);
            }
            suite.clone_from(name);
            if file.is_empty() {
                file.clone_from(around);
            }
        }
        Ok(Case {
            name: attribute(start, "name"),
            classname: attribute(start, "classname"),
            file,
            suite,
            ms: milliseconds(&attribute(start, "time")),
            outcome: CaseOutcome::Passed,
            message: String::new(),
            log: String::new(),
        })
    }

    fn close(&mut self) -> Result<(), JunitRefused> {
        // An end without a start: lenient.
        let Some(element) = self.path.pop() else { return Ok(()) };
        let text = std::mem::take(&mut self.text);
        match element {
            Element::Suite => {
                self.suites.pop();
            }
            Element::Case => {
                if let Some(mut case) = self.case.take() {
                    if case.outcome == CaseOutcome::Passed {
                        case.outcome = outcome_of(&self.status);
                    }
                    if self.report.cases.len() >= CASES_MAX {
                        return Err(JunitRefused::TooMany);
                    }
                    self.report.cases.push(case);
                }
            }
            Element::Fault => self.add_log("failure", &text),
            Element::Retried => self.add_log("failure of an earlier try", &text),
            Element::SystemOut => self.add_log("system-out", &text),
            Element::SystemErr => self.add_log("system-err", &text),
            Element::Skipped => {
                // Without an attribute the reason is the text.
                let skipped = self.case.as_mut().filter(|case| case.outcome == CaseOutcome::Skipped);
                if let Some(case) = skipped.filter(|case| case.message.is_empty()) {
                    case.message = text.trim().to_owned();
                }
            }
            Element::Other => {}
        }
        Ok(())
    }

    fn add_log(&mut self, title: &str, text: &str) {
        let text = text.trim_matches('\n');
        if let Some(case) = self.case.as_mut().filter(|_| !text.trim().is_empty()) {
            case.log.push_str(&format!("--- {title} ---\n{text}\n"));
        }
    }

    fn push_text(&mut self, text: &str) {
        let kept = matches!(self.path.last(), Some(element) if !matches!(element, Element::Suite | Element::Case | Element::Other));
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len());
        if kept && room > 0 {
            let mut end = text.len().min(room);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            self.text.push_str(&text[..end]);
        }
    }
}

/// By `status` alone.
fn outcome_of(status: &str) -> CaseOutcome {
    match status {
        "fail" | "failed" | "failure" | "error" => CaseOutcome::Failed,
        "notrun" | "disabled" | "skipped" => CaseOutcome::Skipped,
        _ => CaseOutcome::Passed,
    }
}

fn named(entity: &str) -> Option<&'static str> {
    Some(match entity {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "quot" => "\"",
        "apos" => "'",
        _ => return None,
    })
}

/// An attribute's value, empty where absent. References that cannot be resolved stay as they are written.
fn attribute(start: &BytesStart<'_>, name: &str) -> String {
    let mut attributes = start.attributes();
    attributes.with_checks(false);
    for found in attributes.flatten() {
        if found.key.local_name().into_inner().eq_ignore_ascii_case(name) {
            let raw = &found.value;
            let mut value = match quick_xml::escape::unescape_with(raw, named) {
                Ok(value) => value.into_owned(),
                Err(_) => raw.clone().into_owned(),
            };
            let mut end = value.len().min(ATTRIBUTE_BYTES_MAX);
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            value.truncate(end);
            return value;
        }
    }
    String::new()
}

/// `time` in seconds: `0.5`, `1,234.5`, `1.234,5`, `0,123`, `1 234.5`, `2s`.
fn milliseconds(time: &str) -> u64 {
    let digits: String = time.chars().filter(|c| c.is_ascii_digit() || ",.-eE+".contains(*c)).collect();
    let (dots, commas) = (digits.matches('.').count(), digits.matches(',').count());
    let decimal_comma = match (digits.rfind('.'), digits.rfind(',')) {
        (Some(dot), Some(comma)) => comma > dot,
        // `0,123`: a decimal comma.
        (None, Some(_)) => commas == 1,
        _ => false,
    };
    let plain = if decimal_comma {
        digits.replace('.', "").replace(',', ".")
    } else if dots > 1 {
        digits.replace(['.', ','], "")
    } else {
        digits.replace(',', "")
    };
    match plain.parse::<f64>() {
        // Saturates; a negative or endless time is none.
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => (seconds * 1000.0).round() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cases(text: &str) -> Vec<Case> {
        read(text.as_bytes()).unwrap().cases
    }

    #[test]
    fn nested_suites_keep_every_case_and_the_innermost_name() {
        let found = cases(
            r#"<?xml version="1.0"?><testsuites><testsuite name="a" file="a.py"><testsuite name="b">
               <testcase name="x" classname="K" time="1,234.5"/></testsuite><testcase name="y" file="y.py" time="0.02"></testcase>
               </testsuite></testsuites>"#,
        );
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].suite.as_str(), found[0].ms), ("x", "b", 1_234_500));
        assert_eq!((found[1].file.as_str(), found[1].suite.as_str(), found[1].ms), ("y.py", "a", 20));
    }

    #[test]
    fn a_bare_suite_and_an_error_element_are_read() {
        let found = cases(
            r#"<testsuite><testcase name="x"><error message="a &lt;b&gt; &#10;c">trace &amp; more<![CDATA[<raw>]]></error>
               <system-out>hello</system-out></testcase><testcase name="s"><skipped message="no"/></testcase></testsuite>"#,
        );
        assert_eq!(found[0].outcome, CaseOutcome::Failed);
        assert_eq!(found[0].message, "a <b> \nc");
        assert_eq!(found[0].log, "--- failure ---\ntrace & more<raw>\n--- system-out ---\nhello\n");
        assert_eq!((found[1].outcome, found[1].message.as_str()), (CaseOutcome::Skipped, "no"));
    }

    #[test]
    fn a_failure_wins_over_a_skip_whatever_comes_first() {
        for body in ["<skipped/><failure message='f'/>", "<failure message='f'/><skipped/>"] {
            let found = cases(&format!("<testsuite><testcase name='x'>{body}</testcase></testsuite>"));
            assert_eq!((found[0].outcome, found[0].message.as_str()), (CaseOutcome::Failed, "f"));
        }
    }

    #[test]
    fn times_are_read_in_every_notation() {
        let all = [
            "1,234.5",
            "1.234,5",
            "1 234.5",
            "0,123",
            "2s",
            "1e-3",
            "-1",
            "NaN",
            "inf",
            "",
            "1,234,567",
            "1.2.3",
        ];
        let expected = [1_234_500, 1_234_500, 1_234_500, 123, 2000, 1, 0, 0, 0, 0, 1_234_567_000, 123_000];
        assert_eq!(all.map(milliseconds), expected);
    }

    #[test]
    fn bare_roots_and_a_status_instead_of_elements_are_read() {
        assert_eq!(cases("<testcase name='x'/>").len(), 1);
        for (status, outcome) in
            [("fail", CaseOutcome::Failed), ("disabled", CaseOutcome::Skipped), ("run", CaseOutcome::Passed)]
        {
            let found = cases(&format!("<testcase name='x' status='{status}'/>"));
            assert_eq!(found[0].outcome, outcome, "{status}");
        }
    }

    #[test]
    fn bad_characters_and_unknown_entities_cost_nothing_but_themselves() {
        let mut bytes = b"<testsuite><testcase name='x\xff'><failure>a\x00\x1bb&boom;c&#0;d &#xD800; & e</failure></testcase>".to_vec();
        bytes.extend_from_slice(b"<testcase name='y'/></testsuite>");
        let found = read(&bytes).unwrap().cases;
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "x\u{fffd}");
        assert!(found[0].log.contains("b\u{fffd}c"));
    }

    #[test]
    fn a_file_that_stops_keeps_what_was_whole() {
        let report = read(b"<testsuite><testcase name='x'/><testcase name='y'><fail").unwrap();
        assert_eq!((report.cases.len(), report.cut_short), (1, true));
    }

    #[test]
    fn bombs_are_refused_or_stay_small() {
        let entities = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><testsuite/>";
        assert_eq!(read(entities.as_bytes()), Err(JunitRefused::Doctype));
        assert_eq!(read("<a>".repeat(100).as_bytes()), Err(JunitRefused::TooDeep));
        let long = format!(
            "<testsuite><testcase name='x'><failure>{}</failure></testcase></testsuite>",
            "é".repeat(1 << 20)
        );
        assert!(cases(&long)[0].log.len() <= TEXT_BYTES_MAX + 64);
        let many = format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(CASES_MAX + 1));
        assert_eq!(read(many.as_bytes()), Err(JunitRefused::TooMany));
        // Each case has the name: a file of 64 MiB would become one of 13 GB.
        let named =
            format!("<testsuite name='{}'>{}</testsuite>", "n".repeat(1 << 14), "<testcase/>".repeat(2049));
        assert_eq!(read(named.as_bytes()), Err(JunitRefused::TooMuch));
    }

    #[test]
    fn what_is_no_xml_is_refused_with_a_reason() {
        assert!(matches!(read(b""), Err(JunitRefused::Malformed(_))));
        assert!(matches!(read(b"hello"), Err(JunitRefused::Malformed(_))));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), mix in "(<testsuite|<testcase name='|</|&#|;|>|'|<!\\[CDATA\\[|\\]\\]>|x){0,40}") {
            let _ = read(&bytes);
            let _ = read(mix.as_bytes());
        }
    }
}
