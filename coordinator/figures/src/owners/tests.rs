//! The documented examples of both forges, in other words, and what hostile files do.

use proptest::prelude::*;

use super::*;

fn read(text: &str, dialect: Dialect) -> Owners {
    let owners = Owners::parse(text, dialect).expect("it is not large");
    assert_eq!(owners.mistakes(), [], "{text}");
    owners
}

/// The owners of a path as one line; empty where there are none.
fn told(owners: &Owners, path: &str) -> String {
    let section = |owned: Owned<'_>| {
        let names: Vec<String> = owned.owners.iter().map(ToString::to_string).collect();
        let section = owned.section.map(|name| format!("{name}: ")).unwrap_or_default();
        format!("{section}{}", names.join(" "))
    };
    owners.of(path).into_iter().map(section).collect::<Vec<_>>().join("; ")
}

fn check(text: &str, dialect: Dialect, cases: &[(&str, &str)]) {
    let owners = read(text, dialect);
    for (path, expected) in cases {
        assert_eq!(told(&owners, path), *expected, "{path} in {dialect:?}");
    }
}

fn mistakes(text: &str, dialect: Dialect) -> Vec<(usize, Reason)> {
    let owners = Owners::parse(text, dialect).expect("it is not large");
    owners.mistakes().iter().map(|mistake| (mistake.line, mistake.reason.clone())).collect()
}

#[test]
fn github_the_last_rule_that_matches_wins() {
    let text = "\
# everything, unless a later line says otherwise
*        @all1 @all2

*.js     @js    #only for these
*.go     docs@example.com
*.txt    @octo/writers
/build/logs/ @logs
docs/*   @pages
apps/    @apps
/docs/   @handbook
";
    check(
        text,
        Dialect::GitHub,
        &[
            ("README", "@all1 @all2"),
            (".github/workflows/ci.yml", "@all1 @all2"),
            ("a/b/c.js", "@js"),
            ("main.go", "docs@example.com"),
            ("deep/er/notes.txt", "@octo/writers"),
            ("build/logs/today.js", "@logs"),
            ("sub/build/logs/today.js", "@js"),
            ("apps/web/main.js", "@apps"),
            ("deeply/nested/apps/x", "@apps"),
            ("docs/index.md", "@handbook"),
            ("docs/build-app/help.md", "@handbook"),
            ("sub/docs/index.md", "@all1 @all2"),
            ("/README", "@all1 @all2"),
            ("./README", "@all1 @all2"),
        ],
    );
}

#[test]
fn github_a_star_as_the_last_part_does_not_go_deeper() {
    check(
        "docs/* @pages\nsrc/b* @b\n/*.md @top\n",
        Dialect::GitHub,
        &[
            ("docs/start.md", "@pages"),
            ("docs/build-app/help.md", ""),
            ("sub/docs/start.md", ""),
            ("src/bin/main.rs", "@b"),
            ("src/b.rs", "@b"),
            ("src/c.rs", ""),
            ("README.md", "@top"),
            ("sub/README.md", ""),
        ],
    );
}

#[test]
fn github_two_stars_cross_folders() {
    check(
        "**/logs @logs\n/a/**/z @az\nb/** @b\n",
        Dialect::GitHub,
        &[
            ("logs/x", "@logs"),
            ("build/logs", "@logs"),
            ("deeply/nested/logs/x/y", "@logs"),
            ("changelogs/x", ""),
            ("a/z", "@az"),
            ("a/1/2/z", "@az"),
            ("a/1/2/z/in", "@az"),
            ("b/1/2", "@b"),
            ("b", ""),
        ],
    );
}

#[test]
fn github_a_rule_without_owners_leaves_a_path_to_nobody() {
    let text = "/apps/ @octocat\n/apps/github\n";
    check(text, Dialect::GitHub, &[("apps/x", "@octocat"), ("apps/github/x", ""), ("apps/github", "")]);
}

#[test]
fn github_a_name_without_a_slash_is_a_file_or_a_folder_anywhere() {
    check(
        "target @t\n",
        Dialect::GitHub,
        &[("target", "@t"), ("a/target", "@t"), ("a/target/b/c", "@t"), ("targets", ""), ("a/my-target", "")],
    );
}

#[test]
fn github_case_counts_and_a_folder_is_no_file() {
    check("Docs/ @d\n", Dialect::GitHub, &[("Docs/a", "@d"), ("docs/a", ""), ("Docs", "")]);
}

#[test]
fn github_what_it_does_not_support_is_told_and_skipped() {
    let text = "* @all\n!*.js @x\n*.[ch] @x\n\\#file @x\n*.py nobody\n*.rs @a @@owner\n/ @x\nx\\";
    assert_eq!(
        mistakes(text, Dialect::GitHub),
        [
            (2, Reason::Negation),
            (3, Reason::Range),
            (4, Reason::Pound),
            (5, Reason::Owner("nobody".to_owned())),
            (6, Reason::Owner("@@owner".to_owned())),
            (7, Reason::Empty),
            (8, Reason::Escape),
        ]
    );
    let owners = Owners::parse(text, Dialect::GitHub).expect("the rest holds");
    assert_eq!(told(&owners, "a.py"), "@all");
    assert_eq!(owners.mistakes()[1].to_string(), "line 3: a pattern cannot have a range in `[ ]`");
}

#[test]
fn escaped_spaces_are_part_of_a_path_and_braces_mean_themselves() {
    for dialect in [Dialect::GitHub, Dialect::GitLab] {
        check(
            "/with\\ space/ @s\n/{a,b} @braces\n/star\\* @star\n",
            dialect,
            &[("with space/x", "@s"), ("{a,b}", "@braces"), ("a", ""), ("star*", "@star"), ("starry", "")],
        );
    }
}

#[test]
fn gitlab_paths_match_as_documented() {
    let text = "\
* @default
README.md @doc @lead
internal/README.md @internal
/LICENSE @legal jane@example.com
lib/ @lib
/config/ @@maintainers
/docs/ @all-docs
/docs/* @root-docs
/docs/**/*.md @markdown
/top @top
\\#pound.rb @pound
*.[ch] @c
group.txt @group @group/with-nested/subgroup
";
    check(
        text,
        Dialect::GitLab,
        &[
            ("anything", "@default"),
            (".gitignore", "@default"),
            ("README.md", "@doc @lead"),
            ("a/b/README.md", "@doc @lead"),
            ("internal/README.md", "@internal"),
            ("docs/internal/README.md", "@markdown"),
            ("api/internal/README.md", "@internal"),
            ("LICENSE", "@legal jane@example.com"),
            ("sub/LICENSE", "@default"),
            ("lib/x", "@lib"),
            ("a/lib/x/y", "@lib"),
            ("config/x/y", "@@maintainer"),
            ("a/config/x", "@default"),
            ("docs/a.png", "@root-docs"),
            ("docs/a/b.png", "@all-docs"),
            ("docs/b.md", "@markdown"),
            ("docs/a/b.md", "@markdown"),
            ("top", "@top"),
            ("top/x", "@default"),
            ("#pound.rb", "@pound"),
            ("src/x.c", "@c"),
            ("group.txt", "@group @group/with-nested/subgroup"),
        ],
    );
}

#[test]
fn gitlab_each_section_has_its_last_rule() {
    let text = "\
* @admin

[README Owners]
README.md @user1 @user2
internal/README.md @user4

[README other owners]
README.md @user3
";
    check(
        text,
        Dialect::GitLab,
        &[
            ("README.md", "@admin; README Owners: @user1 @user2; README other owners: @user3"),
            ("internal/README.md", "@admin; README Owners: @user4; README other owners: @user3"),
            ("x", "@admin"),
        ],
    );
}

#[test]
fn gitlab_sections_have_default_owners_approvals_and_may_be_optional() {
    let owners = read(
        "[Docs][2] @docs-team\ndocs/\n*.txt @writers\n^[Database] @db @carol\nmodel/db/\n[Plain]\nplain @p\n",
        Dialect::GitLab,
    );
    let of = |path: &str| {
        let owned = owners.of(path);
        owned
            .into_iter()
            .map(|owned| (owned.section.map(str::to_owned), owned.is_optional, owned.approvals, owned.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("docs/x"), [(Some("Docs".to_owned()), false, 2, 2)]);
    assert_eq!(of("model/db/x"), [(Some("Database".to_owned()), true, 1, 5)]);
    assert_eq!(told(&owners, "model/db/CHANGELOG.txt"), "Docs: @writers; Database: @db @carol");
    assert_eq!(told(&owners, "plain"), "Plain: @p");
    assert_eq!(owners.all_of("model/db/CHANGELOG.txt").len(), 3);
}

#[test]
fn gitlab_sections_of_one_name_are_one_and_required_if_either_is() {
    let text = "^[Docs] @a\nx\n[Database]\ny @b\n[DOCS][3]\nz @c\n";
    let owners = read(text, Dialect::GitLab);
    let owned = owners.of("z");
    assert_eq!((owned[0].section, owned[0].is_optional, owned[0].approvals), (Some("Docs"), false, 3));
    assert_eq!(told(&owners, "x"), "Docs: @a");
}

#[test]
fn gitlab_exclusions_hold_in_their_section_whatever_comes_later() {
    let text = "\
* @default
!pom.xml
!**/generated/
[Ruby]
*.rb @ruby
!/config/**/*.rb
/config/routes.rb @ops
[Config]
/config/ @ops-team
";
    check(
        text,
        Dialect::GitLab,
        &[
            ("pom.xml", ""),
            ("a/generated/b", ""),
            ("a.rb", "@default; Ruby: @ruby"),
            ("config/routes.rb", "@default; Config: @ops-team"),
            ("config/a/b.rb", "@default; Config: @ops-team"),
        ],
    );
}

#[test]
fn gitlab_mistakes_are_told_and_the_rest_of_the_line_holds() {
    let text = "/a @group nobody @user\n/b\n[Section name\n[Docs][0] @d\nc\n[Docs][x]\nd with spaces/*.md @e";
    assert_eq!(
        mistakes(text, Dialect::GitLab),
        [
            (1, Reason::Owner("nobody".to_owned())),
            (2, Reason::NoOwner),
            (3, Reason::Section),
            (4, Reason::Approvals),
            (6, Reason::Approvals),
            (7, Reason::Owner("with".to_owned())),
            (7, Reason::Owner("spaces/*.md".to_owned())),
        ]
    );
    let owners = Owners::parse(text, Dialect::GitLab).expect("the rest holds");
    assert_eq!(told(&owners, "a"), "@group @user");
    assert_eq!(told(&owners, "c"), "Docs: @d");
    assert_eq!(owners.of("c")[0].approvals, 1);
    assert_eq!(told(&owners, "d"), "Docs: @e");
}

#[test]
fn gitlab_owners_in_what_looks_like_a_comment_count_and_its_words_are_no_mistakes() {
    check("/a @a # and not @b\n", Dialect::GitLab, &[("a", "@a @b")]);
}

#[test]
fn what_is_too_much_is_refused_and_told() {
    assert_eq!(
        Owners::parse(&" ".repeat(TEXT_MAX + 1), Dialect::GitHub).err(),
        Some(OwnersError::TooLarge(TEXT_MAX + 1))
    );
    let long = format!("{} @a\n/b {}\n", "x".repeat(WORD_MAX + 1), "@o ".repeat(OWNERS_MAX + 1));
    for dialect in [Dialect::GitHub, Dialect::GitLab] {
        assert_eq!(mistakes(&long, dialect), [(1, Reason::TooLong), (2, Reason::TooManyOwners)]);
    }
    let many = "!\n".repeat(MISTAKES_MAX + 5);
    let owners = Owners::parse(&many, Dialect::GitHub).expect("it is not large");
    assert_eq!((owners.mistakes().len(), owners.mistakes_count()), (MISTAKES_MAX, MISTAKES_MAX + 5));
    assert_eq!(read("* @a\n", Dialect::GitHub).of(&"x".repeat(PATH_MAX + 1)), []);
}

#[test]
fn thousands_of_rules_are_read_and_the_last_one_wins() {
    let mut text = String::from("* @all\n");
    for rule in 0..3_000 {
        text.push_str(&format!("/services/s{rule}/**/*_test.rs @team{rule}\n"));
    }
    let owners = read(&text, Dialect::GitHub);
    assert_eq!(told(&owners, "services/s2999/a/b_test.rs"), "@team2999");
    assert_eq!(told(&owners, "services/s17/b_test.rs"), "@team17");
    assert_eq!(told(&owners, "services/s3000/b_test.rs"), "@all");
}

#[test]
fn hostile_patterns_take_no_time() {
    let pattern = "*a".repeat(WORD_MAX / 2);
    let owners = read(&format!("/{} @a\n", &pattern[2..]), Dialect::GitHub);
    assert_eq!(told(&owners, &"a".repeat(PATH_MAX - 1)), "@a");
    assert_eq!(told(&owners, &"b".repeat(PATH_MAX - 1)), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_panics_and_mistakes_are_in_order(
        text in "([\\[\\]^!#@*?/\\\\{}a-z0-9 .\t\n-]|\u{202e}|é){0,200}",
        path in "[a-z/. *\\[\\]-]{0,30}",
    ) {
        for dialect in [Dialect::GitHub, Dialect::GitLab] {
            let owners = Owners::parse(&text, dialect).expect("it is not large");
            let lines: Vec<usize> = owners.mistakes().iter().map(|mistake| mistake.line).collect();
            prop_assert!(lines.is_sorted());
            for owned in owners.of(&path) {
                prop_assert!(!owned.owners.is_empty() && owned.approvals >= 1);
            }
        }
    }

    /// Beside a plain reading of the rule: of the lines that name a folder from the root, the last that is a prefix.
    #[test]
    fn the_last_matching_folder_wins(
        folders in prop::collection::vec(prop::collection::vec(0..3_u8, 1..4), 1..12),
        path in prop::collection::vec(0..3_u8, 1..6),
    ) {
        let name = |parts: &[u8]| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
        let text: String = folders.iter().enumerate().map(|(place, folder)| format!("/{}/ @o{place}\n", name(folder))).collect();
        let expected = folders.iter().rposition(|folder| path.starts_with(folder));
        let expected = expected.map(|place| format!("@o{place}")).unwrap_or_default();
        let file = format!("{}/file", name(&path));
        for dialect in [Dialect::GitHub, Dialect::GitLab] {
            prop_assert_eq!(&told(&read(&text, dialect), &file), &expected);
        }
    }
}

#[test]
fn a_test_is_of_a_file_where_its_id_reads_like_one() {
    for (id, file) in [
        ("tests/test_a.py::TestB::test_c[x::y]", Some("tests/test_a.py")),
        ("src/a.test.ts::shop::sells", Some("src/a.test.ts")),
        ("t/smoke.t", Some("t/smoke.t")),
        ("example.com/shop::TestSells", Some("example.com/shop")),
        ("shop::till sells", None),
        ("a.py b::x", None),
        ("../../etc/passwd.x::y", None),
        ("/etc/passwd.x::y", None),
        ("a\u{1b}.py::x", None),
        ("", None),
        ("::a.py", None),
    ] {
        assert_eq!(file_of(id), file, "{id}");
    }
    assert_eq!(file_of(&"x.".repeat(FILE_MAX)), None);
}
