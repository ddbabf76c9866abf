//! A page's commands and what it says that they say.
//!
//! Pure. Blocks marked `console` hold commands (`$ …`, with the lines of a here-document up to `END`) and, below each, its output. In output
//! `…` stands for anything, and what looks like a commit's id or a key agrees with any such.

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where in the page, from 1.
    pub(crate) line: usize,
    /// As it is typed.
    pub(crate) command: String,
    /// The lines that it answers with.
    pub(crate) says: Vec<String>,
}

/// All of them, in the page's order.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut inside = false;
    while let Some((at, line)) = lines.next() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        match line.strip_prefix("$ ") {
            _ if !inside => {}
            Some(first) => {
                let mut command = first.to_owned();
                if first.contains("<<END") || first.contains("<<'END'") {
                    for (_, more) in lines.by_ref() {
                        command.push('\n');
                        command.push_str(more);
                        if more == "END" {
                            break;
                        }
                    }
                }
                steps.push(Step { line: at + 1, command, says: Vec::new() });
            }
            None => steps.last_mut().expect("a block begins with a command").says.push(line.to_owned()),
        }
    }
    steps
}

/// Whether the lines are among those that were said, in their order; `Err` is the first that is not.
pub(crate) fn agrees(lines: &[String], said: &str) -> Result<(), String> {
    let mut said = said.lines();
    for line in lines.iter().filter(|line| !line.trim().is_empty() && line.as_str() != "…") {
        if !said.any(|said| alike(line, said)) {
            return Err(line.clone());
        }
    }
    Ok(())
}

fn alike(line: &str, said: &str) -> bool {
    let said = plain(said);
    let pieces: Vec<String> = line.split('…').map(plain).collect();
    let Some((first, others)) = pieces.split_first() else { return false };
    let Some(mut rest) = said.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.split_once(piece.as_str()) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// Without what differs each time: spaces as one, ids as `@`.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = |fit: fn(char) -> bool| rest.find(|c| !fit(c)).unwrap_or(rest.len());
        let id = run(|c| matches!(c, '0'..='9' | 'a'..='f'));
        let (taken, sign) = if first.is_whitespace() {
            (run(char::is_whitespace), " ")
        } else if id >= 7 {
            (id, "@")
        } else {
            (first.len_utf8(), &rest[..first.len_utf8()])
        };
        out.push_str(sign);
        rest = &rest[taken..];
    }
    out.trim_end().to_owned()
}

#[test]
fn commands_have_their_here_documents_and_their_output() {
    let page = "text\n$ no command\n```sh\n$ not this\n```\n```console\n$ cat > a <<'END'\n$ b\nEND\n$ ls\na\n\nb\n```\n";
    let step = |line, command: &str, says: &[&str]| Step {
        line,
        command: command.to_owned(),
        says: says.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps(page), [step(7, "cat > a <<'END'\n$ b\nEND", &[]), step(10, "ls", &["a", "", "b"])]);
}

#[test]
fn what_differs_each_time_agrees_and_nothing_else_does() {
    let agree = |line: &str, said: &str| agrees(&[line.to_owned()], said).is_ok();
    assert!(agree("run 2 passed: shop 4f2a9c1b7d3e (main)", "x\nrun 2 passed: shop 0123456789ab (main)\ny"));
    assert!(agree("  tests      4 passed", "  tests   4 passed"));
    assert!(agree("…ibd…", "  changed shop/stock.ibd 1 kB"));
    assert!(agree("worker a-… started", "worker a-7c2f started"));
    for (line, said) in [
        ("run 2 passed", "run 2 failed"),
        ("3 passed, 1 failed", "2 passed, 2 failed"),
        ("run 2 passed", "run 2 passed, nearly"),
        ("…ibd", "stock.ibd there"),
        ("100", "a 100"),
        ("x", ""),
    ] {
        assert!(!agree(line, said), "{line:?} {said:?}");
    }
    let order = ["b".to_owned(), "a".to_owned()];
    assert_eq!(agrees(&order, "a\nb\n"), Err("a".to_owned()));
}
