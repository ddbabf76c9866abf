//! How the command fails: what, why, what to do, and with which exit code.
//!
//! The chain of causes is made harmless for the terminal when the error is made, because it may quote names and
//! messages from outside.

use std::error::Error;
use std::fmt;
use std::io;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use crate::report::exit::Exit;
use crate::report::text;

/// An error of the command, on its way to the person.
#[derive(Debug)]
pub(crate) struct CliError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    exit: Exit,
    what: String,
    why: Option<Why>,
    hint: Option<String>,
    /// Where whoever reads the output is gone there is nobody to tell.
    quiet: bool,
}

/// One link of the chain of causes, as text.
#[derive(Debug)]
struct Why {
    text: String,
    source: Option<Box<Why>>,
}

impl CliError {
    /// An error that ends the command with this code.
    pub(crate) fn new(exit: Exit, what: impl AsRef<str>) -> Self {
        let what = text::lines(what.as_ref()).into_owned();
        Self(Box::new(Parts { exit, what, why: None, hint: None, quiet: false }))
    }

    /// The command line, or what it names, is at fault.
    pub(crate) fn usage(what: impl AsRef<str>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// The farm or this machine is at fault.
    pub(crate) fn infrastructure(what: impl AsRef<str>) -> Self {
        Self::new(Exit::Incomplete, what)
    }

    /// The project's configuration is at fault.
    pub(crate) fn config(what: impl AsRef<str>) -> Self {
        Self::new(Exit::Config, what)
    }

    /// With its cause and the causes of that.
    pub(crate) fn because(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.0.why = Some(Why::of(cause));
        self
    }

    /// With what the person can do.
    pub(crate) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.0.hint = Some(text::lines(hint.as_ref()).into_owned());
        self
    }

    /// The exit code that it stands for.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// The whole as it is written to stderr; `None` where nobody reads.
    pub(crate) fn render(&self, colour: bool) -> Option<String> {
        if self.0.quiet {
            return None;
        }
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).with_links(false);
        let mut said = String::new();
        match handler.render_report(&mut said, self) {
            Ok(()) => Some(said),
            Err(_) => Some(format!("{self}\n")),
        }
    }
}

impl Why {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut chain = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let said = error.to_string();
            // Libraries differ in whether an error repeats its cause.
            if chain.last().is_none_or(|last: &String| !last.ends_with(&said)) {
                chain.push(said);
            }
            next = error.source();
        }
        let mut why: Option<Box<Self>> = None;
        for said in chain.iter().rev() {
            why = Some(Box::new(Self { text: text::lines(said).into_owned(), source: why }));
        }
        *why.expect("an error has at least itself in its chain")
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.why.as_ref().map(|why| why as &(dyn Error + 'static))
    }
}

impl Diagnostic for CliError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Why {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|why| why as &(dyn Error + 'static))
    }
}

/// For what is written to stdout and to files that the person named.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            let mut quiet = Self::new(Exit::BrokenPipe, "whoever read the output went away");
            quiet.0.quiet = true;
            return quiet;
        }
        Self::infrastructure("cannot write the output").because(&error)
    }
}

/// What the farm answers instead of a result.
impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        let said = text::lines(status.message()).into_owned();
        match status.code() {
            tonic::Code::NotFound | tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
                Self::usage(if said.is_empty() { "the farm refuses that".to_owned() } else { said })
            }
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Self::usage(
                "the coordinator does not accept the token",
            )
            .hint("the farm's own is in farm.json of its state folder; give it as ANDON_TOKEN or --token"),
            tonic::Code::Unavailable => Self::infrastructure("the coordinator cannot be reached")
                .because(&status)
                .hint("`andon doctor` says what is wrong; `andon up` starts what is missing"),
            _ => Self::infrastructure("the coordinator could not do that").because(&status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer \x1b[2Jthing")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let cause = Outer(io::Error::other("inner"));
        let error =
            CliError::infrastructure("cannot start the coordinator").because(&cause).hint("try again");
        insta::assert_snapshot!(error.render(false).unwrap(), @r#"
        × cannot start the coordinator
        ├─▶ outer \x1b[2Jthing
        ╰─▶ inner
        help: try again
        "#);
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.render(true), None);
        assert_eq!(error.exit().code(), 141);
    }

    #[test]
    fn what_the_farm_refuses_is_usage_and_what_it_cannot_do_is_infrastructure() {
        let code = |status: tonic::Status| CliError::from(status).exit().code();
        assert_eq!(code(tonic::Status::not_found("run 7 is not known")), 2);
        assert_eq!(code(tonic::Status::invalid_argument("x")), 2);
        assert_eq!(code(tonic::Status::unauthenticated("x")), 2);
        assert_eq!(code(tonic::Status::unavailable("x")), 106);
        assert_eq!(code(tonic::Status::internal("x")), 106);
    }
}
