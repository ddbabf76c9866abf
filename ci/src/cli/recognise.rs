//! Which tool runs a project's tests, as its files tell.
//!
//! First come signs that are sure (a tool's own configuration), then those that many projects have. Reads heads of files and one folder's
//! names, no more; runs nothing. Must not know the farm.

use std::fmt;
use std::fs;
use std::path::Path;

/// Where pytest's tests usually are.
const TEST_FOLDERS: [&str; 2] = ["tests", "test"];
/// Files of a folder that are looked at before giving up on finding tests in it.
const ENTRIES_MAX: usize = 2_000;
/// Of a configuration file, so much is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Recognised {
    pub(in crate::cli) tool: Tool,
    /// The file that told it, for the person to check.
    pub(in crate::cli) why: String,
}

/// A tool that runs tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tool {
    Pytest,
    Nextest,
    Libtest,
    Go,
    Jest,
    Vitest,
    Node,
    Phpunit,
    Gradle,
    Maven,
    Ctest,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pytest => "pytest",
            Self::Nextest => "cargo-nextest",
            Self::Libtest => "cargo test",
            Self::Go => "go test",
            Self::Jest => "Jest",
            Self::Vitest => "Vitest",
            Self::Node => "node:test",
            Self::Phpunit => "PHPUnit",
            Self::Gradle => "Gradle",
            Self::Maven => "Maven",
            Self::Ctest => "ctest",
        })
    }
}

impl Tool {
    /// An image to begin with.
    pub(in crate::cli) fn image(self) -> &'static str {
        match self {
            Self::Pytest => "python:3.13",
            Self::Nextest | Self::Libtest => "rust:1",
            Self::Go => "golang:1",
            Self::Jest | Self::Vitest | Self::Node => "node:22",
            Self::Phpunit => "php:8-cli",
            Self::Gradle => "gradle:8",
            Self::Maven => "maven:3",
            Self::Ctest => "debian:trixie-slim",
        }
    }

    /// The suite's own lines in andon.toml.
    pub(in crate::cli) fn lines(self) -> String {
        let junit = |discover: &str, run: &str, reports: &str| {
            format!(
                "runner  = \"junit\"                      # a command that runs the ids, and the JUnit files that it leaves\n\
                 discover = '''{discover}'''\nrun      = '''{run}'''\nreports  = [\"{reports}\"]\n"
            )
        };
        match self {
            Self::Pytest => "runner  = \"pytest\"\n".to_owned(),
            Self::Nextest => "runner  = \"nextest\"\n".to_owned(),
            Self::Libtest => "runner  = \"libtest\"                    # or \"nextest\", where cargo-nextest is installed\n".to_owned(),
            Self::Go => "runner  = \"go\"\n".to_owned(),
            Self::Jest => "runner  = \"jest\"                       # node_modules has to be in the image, or built by it\n".to_owned(),
            Self::Vitest => "runner  = \"vitest\"                     # node_modules has to be in the image, or built by it\n".to_owned(),
            Self::Node => "runner  = \"node\"\n".to_owned(),
            Self::Phpunit => junit(
                r"vendor/bin/phpunit --list-tests | sed -n 's/^ - //p'",
                "vendor/bin/phpunit --log-junit build/junit.xml --filter {regex}",
                "build/junit.xml",
            ),
            Self::Gradle => junit(
                r"find . -path '*/src/test/*' -name '*Test.*' | sed 's#.*/src/test/[a-z]*/##; s#\.[a-z]*$##; s#/#.#g'",
                "gradle test {tests:--tests}",
                "build/test-results/test/*.xml",
            ),
            Self::Maven => junit(
                r"find . -path '*/src/test/java/*' -name '*Test.java' | sed 's#.*/src/test/java/##; s#\.java$##; s#/#.#g'",
                "mvn -q test -Dtest={list} -DfailIfNoTests=false",
                "target/surefire-reports/*.xml",
            ),
            Self::Ctest => junit(
                r"ctest --test-dir build -N | sed -n 's/^ *Test *#[0-9]*: //p'",
                "ctest --test-dir build --output-junit junit.xml -R {regex}",
                "build/junit.xml",
            ),
        }
    }
}

/// The project's tool; `None` where nothing tells.
pub(in crate::cli) fn runner(dir: &Path) -> Option<Recognised> {
    let found = |tool: Tool, why: String| Some(Recognised { tool, why });
    if let Some(why) = pytest_configured(dir) {
        return found(Tool::Pytest, why);
    }
    for (file, tool) in [
        ("Cargo.toml", Tool::Libtest),
        ("go.mod", Tool::Go),
        ("package.json", Tool::Node),
        ("phpunit.xml", Tool::Phpunit),
        ("phpunit.xml.dist", Tool::Phpunit),
        ("build.gradle", Tool::Gradle),
        ("build.gradle.kts", Tool::Gradle),
        ("pom.xml", Tool::Maven),
        ("CTestTestfile.cmake", Tool::Ctest),
        ("CMakeLists.txt", Tool::Ctest),
    ] {
        let path = dir.join(file);
        if !path.is_file() {
            continue;
        }
        match tool {
            Tool::Libtest if dir.join(".config/nextest.toml").is_file() => {
                return found(Tool::Nextest, ".config/nextest.toml".to_owned());
            }
            Tool::Node => {
                if let Some(tool) = of_package(&path) {
                    return found(tool, file.to_owned());
                }
            }
            Tool::Ctest if file == "CMakeLists.txt" && !head_contains(&path, "enable_testing") => {}
            tool => return found(tool, file.to_owned()),
        }
    }
    TEST_FOLDERS
        .iter()
        .find_map(|folder| Some(format!("{folder}/{}", first_test_file(&dir.join(folder))?)))
        .and_then(|why| found(Tool::Pytest, why))
}

/// What a suite's runner needs in the repository and does not find; the tools themselves are the image's.
pub(in crate::cli) fn missing(dir: &Path, runner: &str) -> Option<String> {
    let file = match runner {
        "nextest" | "libtest" => "Cargo.toml",
        "go" => "go.mod",
        "jest" | "vitest" => "package.json",
        _ => return None,
    };
    let path = dir.join(file);
    if !path.is_file() {
        return Some(format!("there is no {file}"));
    }
    let tool = match runner {
        "jest" => Tool::Jest,
        "vitest" => Tool::Vitest,
        _ => return None,
    };
    // A project may use both.
    let named = of_package(&path) == Some(tool) || head_contains(&path, &format!("\"{runner}\""));
    (!named).then(|| format!("{file} does not name {tool}"))
}

/// By what the package depends on, or by its script `test`.
fn of_package(path: &Path) -> Option<Tool> {
    let package: serde_json::Value = serde_json::from_slice(&head(path)).ok()?;
    let depends = |name: &str| {
        ["dependencies", "devDependencies"].iter().any(|table| package[table].get(name).is_some())
    };
    let script = package["scripts"]["test"].as_str().unwrap_or_default();
    if depends("vitest") || script.contains("vitest") {
        Some(Tool::Vitest)
    } else if depends("jest") || package.get("jest").is_some() || script.contains("jest") {
        Some(Tool::Jest)
    } else {
        script.contains("node --test").then_some(Tool::Node)
    }
}

fn pytest_configured(dir: &Path) -> Option<String> {
    for (file, mark) in [
        ("pytest.ini", ""),
        ("pyproject.toml", "[tool.pytest"),
        ("tox.ini", "[pytest]"),
        ("setup.cfg", "[tool:pytest]"),
        ("conftest.py", ""),
    ] {
        let path = dir.join(file);
        if path.is_file() && (mark.is_empty() || head_contains(&path, mark)) {
            return Some(file.to_owned());
        }
    }
    None
}

fn head(path: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut head = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_end(&mut head)) {
        Ok(_) => head,
        Err(_) => Vec::new(),
    }
}

fn head_contains(path: &Path, mark: &str) -> bool {
    String::from_utf8_lossy(&head(path)).contains(mark)
}

fn first_test_file(folder: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .take(ENTRIES_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let is_test = name.starts_with("test_") || name.ends_with("_test.py") || name == "conftest.py";
            is_test && name.ends_with(".py")
        })
        .collect();
    names.sort();
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(files: &[(&str, &str)]) -> Option<Recognised> {
        let temp = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        runner(temp.path())
    }

    #[test]
    fn each_tool_is_recognised_by_each_of_its_signs() {
        for (name, content, tool) in [
            ("pytest.ini", "[pytest]", Tool::Pytest),
            ("pyproject.toml", "[tool.pytest.ini_options]\n", Tool::Pytest),
            ("tox.ini", "[pytest]\n", Tool::Pytest),
            ("setup.cfg", "[tool:pytest]\n", Tool::Pytest),
            ("conftest.py", "", Tool::Pytest),
            ("tests/test_a.py", "", Tool::Pytest),
            ("tests/conftest.py", "", Tool::Pytest),
            ("test/a_test.py", "", Tool::Pytest),
            ("Cargo.toml", "[package]", Tool::Libtest),
            ("go.mod", "module x", Tool::Go),
            ("package.json", r#"{"devDependencies":{"vitest":"3"}}"#, Tool::Vitest),
            ("package.json", r#"{"jest":{}}"#, Tool::Jest),
            ("package.json", r#"{"scripts":{"test":"node --test"}}"#, Tool::Node),
            ("phpunit.xml", "", Tool::Phpunit),
            ("build.gradle.kts", "", Tool::Gradle),
            ("pom.xml", "", Tool::Maven),
            ("CTestTestfile.cmake", "", Tool::Ctest),
            ("CMakeLists.txt", "enable_testing()", Tool::Ctest),
        ] {
            let found = recognised(&[(name, content)]).unwrap_or_else(|| panic!("{name} tells nothing"));
            assert_eq!((found.tool, found.why.as_str()), (tool, name));
        }
        let nextest = recognised(&[("Cargo.toml", ""), (".config/nextest.toml", "")]).unwrap();
        assert_eq!(nextest.tool, Tool::Nextest);
    }

    #[test]
    fn what_many_projects_have_is_no_sign() {
        for (name, content) in
            [("CMakeLists.txt", "project(x)"), ("package.json", "{}"), ("package.json", "no json")]
        {
            assert_eq!(recognised(&[(name, content)]), None, "{name}");
        }
    }

    #[test]
    fn what_a_runner_does_not_find_is_named() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(missing(temp.path(), "go").as_deref(), Some("there is no go.mod"));
        assert_eq!(missing(temp.path(), "jest").as_deref(), Some("there is no package.json"));
        assert_eq!(missing(temp.path(), "command"), None);
        fs::write(temp.path().join("package.json"), r#"{"devDependencies":{"vitest":"3"}}"#).unwrap();
        assert_eq!(missing(temp.path(), "jest").as_deref(), Some("package.json does not name Jest"));
        assert_eq!(missing(temp.path(), "vitest"), None);
    }

    #[test]
    fn the_lines_of_each_tool_make_a_valid_suite() {
        use Tool::{Ctest, Go, Gradle, Jest, Libtest, Maven, Nextest, Node, Phpunit, Pytest, Vitest};
        for tool in [Pytest, Nextest, Libtest, Go, Jest, Vitest, Node, Phpunit, Gradle, Maven, Ctest] {
            let text = format!("[[suite]]\nname = \"s\"\nimage = \"{}\"\n{}", tool.image(), tool.lines());
            andon::config::parse("andon.toml", text.as_bytes())
                .unwrap_or_else(|errors| panic!("{tool}: {:?}\n{text}", errors.problems));
        }
    }
}
