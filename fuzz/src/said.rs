//! What must hold of all that is said of somebody's file: it can be shown on a terminal, it is short, it names a place.

use andon::config::{ConfigErrors, Note, Place};

/// The longest message: a list of 64 names is the longest that there is.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// The most mistakes that are told of, and the line that counts the others; of two files at most.
const PROBLEMS_MAX: usize = 101;

/// It writes on nobody's terminal and fills nobody's log.
pub(crate) fn showable(text: &str) {
    assert!(text.len() <= MESSAGE_BYTES_MAX, "a message of {} bytes", text.len());
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "a control character in {text:?}");
}

/// Each mistake names a line that the file has.
pub(crate) fn problems(errors: &ConfigErrors, input: &[u8]) {
    assert!(!errors.problems.is_empty(), "refused without a reason");
    assert!(errors.problems.len() <= PROBLEMS_MAX, "{} mistakes", errors.problems.len());
    for problem in &errors.problems {
        assert!(!problem.message.is_empty());
        showable(&problem.to_string());
        place(&problem.place, input);
    }
}

/// As [`problems`].
pub(crate) fn notes(notes: &[Note], input: &[u8]) {
    for note in notes {
        showable(&note.to_string());
        if let Some(of) = &note.place {
            place(of, input);
        }
    }
}

fn place(place: &Place, input: &[u8]) {
    // YAML has other ends of lines than editors, and what is missing at the end is missed on the line behind it.
    let lines = input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 2;
    let fits = (1..=lines).contains(&(place.line as usize)) && place.column >= 1;
    assert!(fits, "{place} in a file of {lines} lines");
    assert!(place.column as usize <= input.len() + 2, "{place} in a file of {} bytes", input.len());
}

/// What was kept is in proportion to what was read: no file of a megabyte becomes one of a gigabyte.
pub(crate) fn bounded(kept: usize, input: &[u8], factor: usize, beside: usize) {
    assert!(kept <= input.len() * factor + beside, "{} bytes became {kept}", input.len());
}
