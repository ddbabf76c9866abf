//! What of a log that grows was not shown yet: each line once, also where the farm tells it again or in another way.
//!
//! While a test runs there is what its whole unit has printed so far; once it has its verdict, its own output alone, which
//! mostly is the end of that. So the two are laid over each other at the longest piece that they share.

/// Beyond this the overlap is not looked for: what is shown then may repeat itself.
const OVERLAP_BYTES_MAX: usize = 1 << 20;

/// What a log has become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News<'t> {
    /// It goes on with this; often with nothing.
    More(&'t [u8]),
    /// It is another text, which has nothing of what was shown.
    Anew(&'t [u8]),
}

/// What was shown of one log.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    shown: Vec<u8>,
}

impl Unread {
    /// What to show now. Until the `last` time only whole lines.
    pub(crate) fn next<'t>(&mut self, text: &'t [u8], last: bool) -> News<'t> {
        let lines = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = if last { text } else { &text[..lines] };
        if self.shown.starts_with(whole) {
            return News::More(&[]);
        }
        let known =
            if whole.starts_with(&self.shown) { self.shown.len() } else { overlap(&self.shown, whole) };
        let was_shown = !self.shown.is_empty();
        self.shown.clear();
        self.shown.extend_from_slice(whole);
        let rest = &whole[known..];
        if was_shown && known == 0 { News::Anew(rest) } else { News::More(rest) }
    }
}

/// How many bytes of `text` are known: all of them where `shown` holds it, else the longest beginning, of whole lines, with which
/// `shown` ends. (Knuth, Morris, Pratt.)
fn overlap(shown: &[u8], text: &[u8]) -> usize {
    let pattern = &text[..text.len().min(OVERLAP_BYTES_MAX)];
    let shown = &shown[shown.len().saturating_sub(OVERLAP_BYTES_MAX)..];
    let shorter = shorter_of(pattern);
    let mut matched = 0;
    for byte in shown {
        while matched > 0 && pattern.get(matched) != Some(byte) {
            matched = shorter[matched - 1];
        }
        if pattern.get(matched) == Some(byte) {
            matched += 1;
        }
        if matched == text.len() {
            return matched;
        }
    }
    while matched > 0 && pattern[matched - 1] != b'\n' {
        matched = shorter[matched - 1];
    }
    matched
}

/// For each beginning of the pattern the length of the longest shorter one that it ends with.
fn shorter_of(pattern: &[u8]) -> Vec<usize> {
    let mut shorter = vec![0; pattern.len()];
    let mut matched = 0;
    for at in 1..pattern.len() {
        while matched > 0 && pattern[at] != pattern[matched] {
            matched = shorter[matched - 1];
        }
        if pattern[at] == pattern[matched] {
            matched += 1;
        }
        shorter[at] = matched;
    }
    shorter
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(texts: &[(&str, bool)]) -> Vec<String> {
        let mut unread = Unread::default();
        let show = |news: News<'_>| match news {
            News::More(text) => String::from_utf8_lossy(text).into_owned(),
            News::Anew(text) => format!("anew {}", String::from_utf8_lossy(text)),
        };
        texts.iter().map(|(text, last)| show(unread.next(text.as_bytes(), *last))).collect()
    }

    #[test]
    fn lines_come_once_and_whole() {
        assert_eq!(
            told(&[("a\nb", false), ("a\nb", false), ("a\nbc\nd", false), ("a\nbc\nd", true)]),
            ["a\n", "", "bc\n", "d"]
        );
    }

    #[test]
    fn the_tests_own_output_goes_on_where_the_units_ended() {
        assert_eq!(
            told(&[("other\nmine 1\n", false), ("mine 1\nmine 2\n", true)]),
            ["other\nmine 1\n", "mine 2\n"]
        );
        assert_eq!(
            told(&[("other\nx\nmine\nnext\n", false), ("mine\n", true)]),
            ["other\nx\nmine\nnext\n", ""]
        );
        assert_eq!(told(&[("unit\n", false), ("captured\n", true)]), ["unit\n", "anew captured\n"]);
    }

    #[test]
    fn a_log_that_is_told_shorter_is_not_told_again() {
        assert_eq!(told(&[("a\nb\n", false), ("a\n", false), ("a\nb\nc\n", true)]), ["a\nb\n", "", "c\n"]);
    }

    #[test]
    fn an_overlap_begins_and_ends_with_lines() {
        assert_eq!(overlap(b"x ab", b"ab\ncd"), 0);
        assert_eq!(overlap(b"x\nab\n", b"ab\ncd"), 3);
        assert_eq!(overlap(b"aaaa\naaa\n", b"aaa\naaa\nb"), 8);
        assert_eq!(overlap(b"", b"a"), 0);
    }

    proptest! {
        #[test]
        fn a_text_that_only_grows_is_shown_as_it_is(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut unread = Unread::default();
            let mut shown = Vec::new();
            let parts = cuts.iter().map(|cut| (&text[..*cut], false)).chain([(text.as_str(), true)]);
            for (part, last) in parts {
                match unread.next(part.as_bytes(), last) {
                    News::More(more) => shown.extend_from_slice(more),
                    News::Anew(_) => prop_assert!(false, "it is the same text"),
                }
            }
            prop_assert_eq!(String::from_utf8(shown).expect("text"), text);
        }

        #[test]
        fn what_is_known_is_the_end_of_what_was_shown(shown in "[ab\n]{0,40}", text in "[ab\n]{1,40}") {
            let known = overlap(shown.as_bytes(), text.as_bytes());
            prop_assert!(shown.ends_with(&text[..known]) || shown.contains(&text));
            let longest = (0..=text.len()).rev().find(|len| {
                shown.ends_with(&text[..*len]) && (*len == 0 || text[..*len].ends_with('\n') || *len == text.len())
            });
            prop_assert!(known >= longest.unwrap_or(0));
        }
    }
}
