//! As much of a Dockerfile as it takes to know the images that it builds on, and to pin them. (Docker's reference,
//! "Dockerfile reference": parser directives, `ARG`, `FROM`, `COPY --from`.)
//!
//! Everything else is the builder's business and passes through as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use thiserror::Error;

/// The name of the empty base image.
const SCRATCH: &str = "scratch";
/// Longest Dockerfile that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most base images.
const BASES_MAX: usize = 64;

/// What is wrong with a Dockerfile, as far as it is read here.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum DockerfileError {
    /// It begins no stage.
    #[error("the Dockerfile has no FROM")]
    NoFrom,
    /// A `FROM` without an image.
    #[error("Dockerfile line {line}: FROM names no image")]
    FromNothing {
        /// Counted from 1.
        line: usize,
    },
    /// The name of the image depends on an argument that has no value.
    #[error(
        "Dockerfile line {line}: {text:?} needs the build argument {argument}, which has neither a value nor a default"
    )]
    NoValue {
        /// Counted from 1.
        line: usize,
        /// As written.
        text: String,
        /// Its name.
        argument: String,
    },
    /// `--target` is not there.
    #[error("the Dockerfile has no stage {target:?}; it has: {}", if .stages.is_empty() { "none with a name".to_owned() } else { .stages.join(", ") })]
    NoTarget {
        /// As asked for.
        target: String,
        /// Those that have a name.
        stages: Vec<String>,
    },
    /// More than anybody builds on.
    #[error("the Dockerfile names more than {BASES_MAX} images")]
    TooMany,
}

/// A Dockerfile, and where it names images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dockerfile {
    text: String,
    /// Where in the text an image is named, and its name after arguments were put in. In order.
    names: Vec<(Range<usize>, String)>,
}

/// One instruction: its words and where each is in the text. Words behind a line's continuation are among them.
struct Instruction<'a> {
    line: usize,
    words: Vec<(Range<usize>, &'a str)>,
}

impl Instruction<'_> {
    fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|(_, word)| word.eq_ignore_ascii_case(name))
    }
}

impl Dockerfile {
    /// Finds the images that stages up to the target build on. `args` are the build's arguments.
    pub(super) fn parse(
        text: &str,
        target: &str,
        args: &BTreeMap<String, String>,
    ) -> Result<Self, DockerfileError> {
        let mut names: Vec<(Range<usize>, String)> = Vec::new();
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut stages: Vec<String> = Vec::new();
        let mut reached = false;
        for instruction in instructions(text) {
            if instruction.is("ARG") && stages.is_empty() {
                declare(&instruction, args, &mut values);
            } else if instruction.is("FROM") {
                if reached {
                    break;
                }
                let (place, image, stage) = from(&instruction)?;
                let image = expand(image, &values, instruction.line)?;
                if image != SCRATCH && !stages.contains(&image.to_lowercase()) {
                    names.push((place, image));
                }
                reached = !target.is_empty()
                    && (stage.eq_ignore_ascii_case(target) || stages.len().to_string() == target);
                stages.push(stage.to_lowercase());
            } else if instruction.is("COPY") && !stages.is_empty() {
                names.extend(copied_image(&instruction, &stages));
            }
            if names.len() > BASES_MAX {
                return Err(DockerfileError::TooMany);
            }
        }
        if stages.is_empty() {
            return Err(DockerfileError::NoFrom);
        }
        if !target.is_empty() && !reached {
            stages.retain(|stage| !stage.is_empty());
            return Err(DockerfileError::NoTarget { target: target.to_owned(), stages });
        }
        Ok(Self { text: text.to_owned(), names })
    }

    /// Every image that is built on, each once.
    pub(super) fn bases(&self) -> Vec<&str> {
        let mut bases: Vec<&str> = self.names.iter().map(|(_, name)| name.as_str()).collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }

    /// The text with every image replaced by its id.
    pub(super) fn pinned(&self, ids: &BTreeMap<String, String>) -> String {
        let mut pinned = String::with_capacity(self.text.len());
        let mut done = 0;
        for (place, name) in &self.names {
            if let Some(id) = ids.get(name) {
                pinned.push_str(&self.text[done..place.start]);
                pinned.push_str(id);
                done = place.end;
            }
        }
        pinned.push_str(&self.text[done..]);
        pinned
    }
}

/// `FROM [--platform=…] image [AS stage]`.
fn from<'a>(instruction: &Instruction<'a>) -> Result<(Range<usize>, &'a str, &'a str), DockerfileError> {
    let mut words = instruction.words[1..].iter().filter(|(_, word)| !word.starts_with("--"));
    let nothing = DockerfileError::FromNothing { line: instruction.line };
    let (place, image) = words.next().ok_or(nothing)?;
    let stage = match (words.next(), words.next()) {
        (Some((_, word)), Some((_, stage))) if word.eq_ignore_ascii_case("as") => stage,
        _ => "",
    };
    Ok((place.clone(), image, stage))
}

/// `COPY --from=image …`, where it is no stage.
fn copied_image(instruction: &Instruction<'_>, stages: &[String]) -> Option<(Range<usize>, String)> {
    let flags = instruction.words[1..].iter().take_while(|(_, word)| word.starts_with("--"));
    let (place, word) = flags.into_iter().find(|(_, word)| word.starts_with("--from="))?;
    let image = &word["--from=".len()..];
    let is_stage = stages.contains(&image.to_lowercase()) || image.parse::<usize>().is_ok();
    // The builder takes no variables here.
    (!image.is_empty() && !is_stage).then(|| (place.end - image.len()..place.end, image.to_owned()))
}

/// `ARG name=default other`, before the first `FROM`.
fn declare(
    instruction: &Instruction<'_>,
    args: &BTreeMap<String, String>,
    values: &mut BTreeMap<String, String>,
) {
    for (_, word) in &instruction.words[1..] {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default.trim_matches(['"', '\'']))),
            None => (*word, None),
        };
        let default = default.map(|text| expand(text, values, instruction.line).unwrap_or_default());
        if let Some(value) = args.get(name).cloned().or(default) {
            values.insert(name.to_owned(), value);
        }
    }
}

/// Puts in `$name`, `${name}`, `${name:-default}` and `${name:+other}`.
fn expand(text: &str, values: &BTreeMap<String, String>, line: usize) -> Result<String, DockerfileError> {
    let unquoted = text.trim_matches(['"', '\'']);
    let mut expanded = String::new();
    let mut rest = unquoted;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (expression, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(split) => split,
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        let end = expression.find(':').unwrap_or(expression.len());
        let (name, operator) = expression.split_at(end);
        let value = values.get(name).filter(|value| !value.is_empty());
        match (operator.get(..2), value) {
            (Some(":+"), Some(_)) => expanded.push_str(&operator[2..]),
            (Some(":+"), None) => {}
            (_, Some(value)) => expanded.push_str(value),
            (Some(":-"), None) => expanded.push_str(&operator[2..]),
            _ => {
                let (text, argument) = (text.to_owned(), name.to_owned());
                return Err(DockerfileError::NoValue { line, text, argument });
            }
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Splits a text into instructions: comments and empty lines left out, continued lines joined.
fn instructions(text: &str) -> Vec<Instruction<'_>> {
    let escape = escape_character(text);
    let mut found: Vec<Instruction<'_>> = Vec::new();
    let mut continues = false;
    let mut start = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let from = start;
        start += line.len();
        let trimmed = line.trim();
        // Also between the lines of one instruction.
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let content = trimmed.strip_suffix(escape);
        let words = words(content.unwrap_or(trimmed), from + (line.len() - line.trim_start().len()));
        match found.last_mut() {
            Some(instruction) if continues => instruction.words.extend(words),
            _ => found.push(Instruction { line: number + 1, words }),
        }
        continues = content.is_some();
    }
    found
}

fn words(line: &str, offset: usize) -> Vec<(Range<usize>, &str)> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let at = offset + line.len() - rest.len();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        if end == 0 {
            return words;
        }
        words.push((at..at + end, &rest[..end]));
        rest = &rest[end..];
    }
}

/// `# escape=` among the directives at the very top.
fn escape_character(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|line| line.split_once('=')) else {
            break;
        };
        if name.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(text: &str) -> Vec<String> {
        let file = Dockerfile::parse(text, "", &BTreeMap::new()).expect("sound");
        file.bases().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn stages_and_scratch_are_no_images() {
        let text = "FROM rust:1 AS Build\nRUN x\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=0 /b /b\nFROM build\n";
        assert_eq!(bases(text), ["rust:1"]);
    }

    #[test]
    fn images_that_files_are_copied_from_are_images_too() {
        assert_eq!(
            bases("FROM a\nCOPY --chown=1 --from=tools:2 /x /x\nCOPY x --from=no\n"),
            ["a", "tools:2"]
        );
    }

    #[test]
    fn arguments_before_the_first_stage_are_put_in() {
        let text = "ARG V=9\nARG REPO=mysql\nARG FULL=${REPO}:$V\nFROM --platform=linux/amd64 ${FULL}\n";
        assert_eq!(bases(text), ["mysql:9"]);
        let args = BTreeMap::from([("V".to_owned(), "8".to_owned())]);
        assert_eq!(Dockerfile::parse(text, "", &args).expect("sound").bases(), ["mysql:8"]);
        assert_eq!(bases("FROM x:${TAG:-1}${DEBUG:+-debug}"), ["x:1"]);
    }

    #[test]
    fn an_argument_without_a_value_is_named_with_its_line() {
        let error =
            Dockerfile::parse("ARG TAG\n\nFROM x:$TAG\n", "", &BTreeMap::new()).expect_err("no value");
        let expected = "Dockerfile line 3: \"x:$TAG\" needs the build argument TAG, which has neither a value nor a default";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn continued_lines_comments_and_case_do_not_matter() {
        let text = "# syntax=x\n# escape=`\nfrom `\n  # inside\n  a:1 `\n  as b\nRUN echo FROM c\nFrom b\n";
        assert_eq!(bases(text), ["a:1"]);
        assert_eq!(bases("RUN x \\\nFROM no\nFROM yes"), ["yes"]);
    }

    #[test]
    fn only_stages_up_to_the_target_count() {
        let text = "FROM a AS one\nFROM b AS two\nCOPY --from=c / /\nFROM d AS three\n";
        let upto = |target| Dockerfile::parse(text, target, &BTreeMap::new());
        assert_eq!(upto("two").expect("sound").bases(), ["a", "b", "c"]);
        assert_eq!(upto("0").expect("sound").bases(), ["a"]);
        let error = upto("four").expect_err("no such stage").to_string();
        assert_eq!(error, "the Dockerfile has no stage \"four\"; it has: one, two, three");
    }

    #[test]
    fn a_file_without_a_stage_is_refused() {
        assert_eq!(Dockerfile::parse("RUN x\n", "", &BTreeMap::new()), Err(DockerfileError::NoFrom));
        let nothing = Dockerfile::parse("FROM --platform=x\n", "", &BTreeMap::new());
        assert_eq!(nothing, Err(DockerfileError::FromNothing { line: 1 }));
    }

    #[test]
    fn pinning_replaces_names_and_nothing_else() {
        let text =
            "ARG V=9\r\nFROM  mysql:$V AS db\r\nRUN echo mysql:9\nFROM db\nCOPY --from=tools:2 /mysql:9 /x\n";
        let file = Dockerfile::parse(text, "", &BTreeMap::new()).expect("sound");
        let ids = [("mysql:9", "sha256:1"), ("tools:2", "sha256:2")];
        let ids = ids.map(|(name, id)| (name.to_owned(), id.to_owned())).into();
        let expected = "ARG V=9\r\nFROM  sha256:1 AS db\r\nRUN echo mysql:9\nFROM db\nCOPY --from=sha256:2 /mysql:9 /x\n";
        assert_eq!(file.pinned(&ids), expected);
    }
}
