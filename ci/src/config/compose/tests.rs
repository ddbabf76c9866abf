//! What a compose file says, and what it is told.

use proptest::prelude::*;

use super::super::measure;
use super::*;
use crate::config::Build;

fn file() -> RepoPath {
    RepoPath::root().join("deploy/compose.yaml").unwrap()
}

fn accepted(text: &str) -> (Compose, Vec<Note>) {
    parse(&file(), text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn problems(text: &str) -> String {
    parse(&file(), text.as_bytes()).expect_err("has mistakes").to_string()
}

/// The problems of one service with these lines.
fn of_service(lines: &str) -> String {
    let body: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    problems(&format!("services:\n  s:\n    image: i:1\n{body}"))
}

const FULL: &str = r#"
name: shop
version: "3.9"
x-env: &env
  LANG: C
  MODE: ${MODE:-test}
services:
  db:
    image: mysql:${MYSQL_TAG:-9.7}
    container_name: shop-db
    restart: always
    ports: ["3306:3306"]
    expose: [3306]
    command: mysqld --performance-schema=OFF --init-file '/etc/my init.sql'
    environment:
      <<: *env
      MYSQL_ALLOW_EMPTY_PASSWORD: yes
      VERSION: 1.10
      MODE: own
      PRICE: $$5
    volumes:
      - data:/var/lib/mysql
      - ./init:/docker-entrypoint-initdb.d:ro
      - /var/log/mysql
      - type: tmpfs
        target: /tmp/fast
        tmpfs: { size: 64m }
    tmpfs: /run:size=1m
    healthcheck:
      test: mysqladmin ping
      interval: 500ms
      timeout: 2s
      retries: 60
      start_period: 1m30s
    networks:
      default:
        aliases: [mysql, database]
    hostname: db-host
    user: "999:999"
    working_dir: /var/lib
    stop_signal: SIGTERM
    stop_grace_period: 10s
    shm_size: 128m
    init: true
    cap_add: [SYS_NICE]
    sysctls: { net.core.somaxconn: 1024 }
    read_only: true
    tty: false
    labels: ["a=b"]
  app:
    build:
      context: ../app
      dockerfile: docker/Dockerfile
      target: dev
      args: [A=1]
    entrypoint: ["/entry", "$$X"]
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
    healthcheck: { disable: true }
  migrate:
    build: ..
    image: shop/migrate
    depends_on: [db]
    environment: [B=2, A=x=y]
volumes:
  data:
networks:
  default:
"#;

#[test]
fn the_whole_subset_means_what_compose_means_by_it() {
    let (compose, notes) = accepted(FULL);
    let [db, app, migrate] = compose.services.as_slice() else { panic!("three services") };
    assert_eq!(db.image.value, Image::Reference("mysql:9.7".into()));
    let command = ["mysqld", "--performance-schema=OFF", "--init-file", "/etc/my init.sql"];
    assert_eq!(db.command.as_deref(), Some(command.map(str::to_owned).as_slice()));
    let environment = [
        ("LANG", "C"),
        ("MODE", "own"),
        ("MYSQL_ALLOW_EMPTY_PASSWORD", "yes"),
        ("PRICE", "$5"),
        ("VERSION", "1.10"),
    ];
    assert_eq!(db.environment, environment.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let mounts: Vec<String> = db
        .mounts
        .iter()
        .map(|mount| {
            let source = match &mount.source {
                MountSource::Volume(name) => format!("volume {name}"),
                MountSource::Bind(path) => format!("bind {}", path.value),
                MountSource::Tmpfs(bytes) => format!("tmpfs {bytes}"),
                MountSource::Anonymous => "anonymous".to_owned(),
            };
            format!("{source} at {}{}", mount.target, if mount.read_only { " ro" } else { "" })
        })
        .collect();
    assert_eq!(
        mounts,
        [
            "volume data at /var/lib/mysql",
            "bind deploy/init at /docker-entrypoint-initdb.d ro",
            "anonymous at /var/log/mysql",
            "tmpfs 67108864 at /tmp/fast",
            "tmpfs 1048576 at /run",
        ]
    );
    let health = db.healthcheck.as_ref().unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "mysqladmin ping"]);
    assert_eq!(health.interval, measure::duration("500ms"));
    assert_eq!(health.start_period, measure::duration("90s"));
    assert_eq!(health.retries, Some(60));
    assert_eq!(db.aliases, ["mysql", "database"]);
    assert_eq!((db.shm_bytes, db.init, db.read_only, db.tty), (Some(128 << 20), true, true, false));
    assert_eq!(db.sysctls, [("net.core.somaxconn".to_owned(), "1024".to_owned())]);
    assert_eq!(db.user, "999:999");

    let Image::Build(build) = &app.image.value else { panic!("a build") };
    let expected = Build {
        context: RepoPath::root().join("app").unwrap(),
        dockerfile: RepoPath::root().join("docker/Dockerfile").unwrap(),
        target: "dev".into(),
        args: vec![("A".into(), "1".into())],
    };
    assert_eq!(build, &expected);
    assert_eq!(app.entrypoint.as_deref(), Some(["/entry".to_owned(), "$X".to_owned()].as_slice()));
    assert_eq!(app.healthcheck.as_ref().unwrap().test, ["NONE"]);
    let waits: Vec<_> = app.depends_on.iter().map(|on| (on.service.as_str(), on.condition)).collect();
    assert_eq!(waits, [("db", Condition::Healthy), ("migrate", Condition::Completed)]);
    assert_eq!(migrate.environment, [("A".into(), "x=y".into()), ("B".into(), "2".into())]);
    assert_eq!(compose.volumes, ["data"]);

    let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(notes.join("\n"), @r#"
    deploy/compose.yaml:3:1: "version" has no effect: the compose specification is always the current one
    deploy/compose.yaml:10:5: "container_name" has no effect: each lane has a container of its own; it is reached by its service's name
    deploy/compose.yaml:11:5: "restart" has no effect: a service that dies while a test runs is a failure to be seen
    deploy/compose.yaml:12:5: "ports" has no effect: services are reached by their names, on their own ports
    deploy/compose.yaml:63:12: "image" has no effect: the service has a "build"
    "#);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let text = r#"
include: [other.yaml]
secrets: { a: {} }
networks:
  front: {}
  default: { driver: macvlan }
volumes:
  data: { external: true }
  nfs: { driver: local, driver_opts: { type: nfs } }
services:
  db:
    image: mysql:9
    privileged: true
    network_mode: host
    extends: { service: base }
    profiles: [dev]
    deploy: { replicas: 2 }
    env_file: .env
    secrets: [a]
    pid: host
    devices: ["/dev/kvm"]
    helthcheck: { test: "true" }
    networks: [front]
    build: { context: ., network: host, dockerfile_inline: "FROM x" }
"#;
    insta::assert_snapshot!(problems(text), @r#"
    deploy/compose.yaml:2:1: "include" of the compose file is not supported: write all services into one file
    deploy/compose.yaml:3:12: secret "a" has no "file"
    deploy/compose.yaml:5:3: network "front" is not supported: all services of a stack share one private network
    deploy/compose.yaml:6:14: "driver" of network "default" is not supported
    deploy/compose.yaml:8:11: "external" of volume "data" is not supported: a baseline holds its volumes: declare the volume here and fill it by a seed command
    deploy/compose.yaml:9:10: "driver" of volume "nfs" is not supported: volumes live in the worker's own pool
    deploy/compose.yaml:9:25: "driver_opts" of volume "nfs" is not supported: volumes live in the worker's own pool; a file of the repository can be a bind
    deploy/compose.yaml:13:5: "privileged" of service "db" is not supported: a service of a stack runs unprivileged; single capabilities go into "cap_add"
    deploy/compose.yaml:14:5: "network_mode" of service "db" is not supported: all services share the stack's private network and reach each other by name
    deploy/compose.yaml:15:5: "extends" of service "db" is not supported: write the service out, or use a YAML anchor and "<<"
    deploy/compose.yaml:16:5: "profiles" of service "db" is not supported: every service of the file is part of the stack: keep others in another file
    deploy/compose.yaml:17:15: "replicas" of deploy is not supported: of "deploy" only resources: limits: is taken: a stack has one container a service
    deploy/compose.yaml:18:5: "env_file" of service "db" is not supported: write the variables under "environment"
    deploy/compose.yaml:20:5: "pid" of service "db" is not supported: namespaces are not shared
    deploy/compose.yaml:21:5: "devices" of service "db" is not supported: a stack has no devices of the worker
    deploy/compose.yaml:22:5: "helthcheck" of service "db" is not supported, did you mean "healthcheck"?
    deploy/compose.yaml:23:16: network "front" is not supported: all services of a stack share one private network
    deploy/compose.yaml:24:26: "network" of build is not supported
    deploy/compose.yaml:24:41: "dockerfile_inline" of build is not supported: write a Dockerfile into the repository
    "#);
}

#[test]
fn secrets_and_configs_are_files_of_the_repository_mounted_read_only() {
    let text = r#"
services:
  app:
    image: app:1
    secrets:
      - password
      - { source: key, target: keys/private }
    configs:
      - { source: nginx, target: /etc/nginx/nginx.conf }
      - motd
secrets:
  password: { file: ./password.txt }
  key: { file: ../keys/private.pem }
configs:
  nginx: { file: nginx.conf }
  motd: { file: ./motd }
"#;
    let (compose, _) = accepted(text);
    let mounts: Vec<(String, String, bool)> = compose.services[0]
        .mounts
        .iter()
        .map(|mount| match &mount.source {
            MountSource::Bind(path) => {
                (mount.target.clone(), path.value.as_str().to_owned(), mount.read_only)
            }
            other => panic!("a file: {other:?}"),
        })
        .collect();
    let bind = |target: &str, file: &str| (target.to_owned(), file.to_owned(), true);
    assert_eq!(
        mounts,
        [
            bind("/run/secrets/password", "deploy/password.txt"),
            bind("/run/secrets/keys/private", "keys/private.pem"),
            bind("/etc/nginx/nginx.conf", "deploy/nginx.conf"),
            bind("/motd", "deploy/motd"),
        ]
    );
}

#[test]
fn secrets_that_are_no_files_are_refused_by_name() {
    let text = r#"
services:
  app:
    image: app:1
    secrets: [pasword, { source: token, mode: 0400 }, { target: x }]
secrets:
  password: { file: ./password.txt }
  token: { environment: TOKEN }
configs: [a]
"#;
    insta::assert_snapshot!(problems(text), @r#"
    deploy/compose.yaml:5:15: secret "pasword" is not declared under the top's "secrets", did you mean "password"?
    deploy/compose.yaml:5:41: "mode" of a secret is not supported: the file has the owner and mode that it has in the commit
    deploy/compose.yaml:5:55: a secret needs a "source"
    deploy/compose.yaml:8:12: "environment" of secret "token" is not supported: only a "file" of the repository is taken: a run does not depend on where it was asked for
    deploy/compose.yaml:9:10: "configs" must be a map, not a list
    "#);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let report = [
        "volumes: [undeclared:/data, ../../x:/y, /etc:/etc, ~/x:/y, \"a:b:c:d\", ./x:relative, ./x:/y:cached]",
        "volumes: [{ type: bind, target: /x }, { type: npipe, target: /x }, { target: /x }, { type: tmpfs, source: a, target: /x }]",
        "volumes: [./a:/x, ./b:/x/]\ntmpfs: [/x, \"/y:mode=1777\", \"/z:size=lots\", /]",
        "environment: [HOME]\nlabels: { a: }",
        "environment: { A: $HOME, B: \"${B}\", C: \"${C:?x}\", \"D D\": x }",
        "environment: [A=1, A=2]",
        "healthcheck: { test: [curl, x], interval: 5, retries: -1 }",
        "healthcheck: { test: [CMD-SHELL, a, b] }",
        "command: \"sh -c 'open\"",
        "cap_add: [ALL, sys_nice]",
        "depends_on: [t, s]",
        "depends_on: { s: { condition: healthy } }",
        "image: x y",
        "tty: yes\nread_only: [1]\nshm_size: big\nstop_signal: TERM 9\nhostname: a/b\nworking_dir: x",
        "user: { a: b }",
        "networks: { default: { aliases: [\"-a\"], ipv4_address: 10.0.0.1 } }",
    ]
    .map(of_service)
    .join("\n--\n");
    insta::assert_snapshot!(report, @r#"
    deploy/compose.yaml:4:15: volume "undeclared" is not declared under the top's "volumes"
    deploy/compose.yaml:4:33: bind "../../x" leads out of the repository
    deploy/compose.yaml:4:45: bind "/etc" is absolute: only what the repository holds can be used, by a path beneath its root
    deploy/compose.yaml:4:56: bind "~/x" is absolute: only what the repository holds can be used, by a path beneath its root
    deploy/compose.yaml:4:64: volume "a:b:c:d": write "source:/target" or "source:/target:ro"
    deploy/compose.yaml:4:75: target "relative": write an absolute path beneath "/", without ".."
    deploy/compose.yaml:4:89: volume option "cached" is not supported: known are "ro" and "rw"
    --
    deploy/compose.yaml:4:15: a bind needs a "source"
    deploy/compose.yaml:4:51: volume type "npipe": write "volume", "bind" or "tmpfs"
    deploy/compose.yaml:4:72: a volume needs "type" and "target"
    deploy/compose.yaml:4:111: a tmpfs has no "source"
    --
    deploy/compose.yaml:4:23: two mounts at "/x"
    deploy/compose.yaml:5:13: two mounts at "/x"
    deploy/compose.yaml:5:17: tmpfs option "mode=1777" is not supported: only "size=" is
    deploy/compose.yaml:5:33: tmpfs "size=lots": write a size such as 65536, "64k", "64m" or "1g"
    deploy/compose.yaml:5:49: target "/": write an absolute path beneath "/", without ".."
    --
    deploy/compose.yaml:4:19: "HOME" in "environment" has no value: it would come from the machine's environment; write the value
    deploy/compose.yaml:5:15: "a" in "labels" has no value: write the value
    --
    deploy/compose.yaml:4:23: "A": $HOME depends on the machine's environment: write ${HOME:-default}, or the value itself
    deploy/compose.yaml:4:33: "B": ${B} depends on the machine's environment: write ${B:-default}, or the value itself
    deploy/compose.yaml:4:44: "C": ${C:?x}: only defaults are supported, as in ${C:-default}
    deploy/compose.yaml:4:55: "D D" is no variable: no spaces and no "="
    --
    deploy/compose.yaml:4:24: "A" is twice in "environment"
    --
    deploy/compose.yaml:4:26: a test begins with "CMD", "CMD-SHELL" or "NONE"
    deploy/compose.yaml:4:47: "interval" is "5": write a duration such as "500ms", "60s", "1m30s" or "2h", at most 1h
    deploy/compose.yaml:4:59: "retries" is "-1": write a whole number from 0 to 1000
    --
    deploy/compose.yaml:4:26: after "CMD-SHELL" comes one text, the shell's line
    --
    deploy/compose.yaml:4:14: "command" has a quote that does not end
    --
    deploy/compose.yaml:4:15: all capabilities are as good as "privileged": name those that are needed
    deploy/compose.yaml:4:20: "sys_nice" is no capability: write SYS_NICE, for example
    --
    deploy/compose.yaml:4:18: service "s" depends on "t", which is no service
    deploy/compose.yaml:4:18: services that wait for each other: "s"
    --
    deploy/compose.yaml:4:19: services that wait for each other: "s"
    deploy/compose.yaml:4:35: condition "healthy": write "service_started", "service_healthy" or "service_completed_successfully"
    --
    deploy/compose.yaml:4:5: "image" is on line 3 already
    --
    deploy/compose.yaml:4:10: "tty" is "yes": write true or false
    deploy/compose.yaml:5:16: "read_only" must be a text, not a list
    deploy/compose.yaml:6:15: "shm_size" is "big": write a size such as 65536, "64k", "64m" or "1g"
    deploy/compose.yaml:7:18: "TERM 9" is no signal: write SIGTERM, for example
    deploy/compose.yaml:8:15: "a/b" is no host name
    deploy/compose.yaml:9:18: "working_dir" is "x": write an absolute path
    --
    deploy/compose.yaml:4:11: "user" must be a text, not a map
    --
    deploy/compose.yaml:4:38: "-a" is no alias
    deploy/compose.yaml:4:45: "ipv4_address" of network "default" is not supported: a stack's addresses are the worker's to give: use the service's name
    "#);
}

#[test]
fn files_that_are_no_compose_files_are_refused() {
    let report = [
        "",
        "# nothing\n",
        "[]",
        "services:",
        "services: []",
        "services: { a: }",
        "services: { \"a b\": { image: x } }",
        "services: { a: { image: x } }\n---\nservices: {}",
        "services: { a: { image: x, image: y } }",
        "services: { a: { image: !env X } }",
        "services: { a: { image: *unknown } }",
        "services: { [a]: b }",
        "services:\n\ta: b",
        "services: { a: { image: x }",
        "services: &s { a: *s }",
    ]
    .map(problems)
    .join("\n--\n");
    insta::assert_snapshot!(report, @r#"
    deploy/compose.yaml:1:1: the file is empty: write the services under "services"
    --
    deploy/compose.yaml:1:1: the file is empty: write the services under "services"
    --
    deploy/compose.yaml:1:1: the compose file must be a map, not a list
    deploy/compose.yaml:1:1: the file has no "services"
    --
    deploy/compose.yaml:1:1: "services" is empty
    --
    deploy/compose.yaml:1:11: "services" must be a map, not a list
    --
    deploy/compose.yaml:1:13: service "a" has no "image" and no "build"
    --
    deploy/compose.yaml:1:13: "a b" is no name for a service: up to 63 letters, digits, ".", "_" and "-", the first a letter or digit
    --
    deploy/compose.yaml:2:1: a second document: a compose file is one
    --
    deploy/compose.yaml:1:28: "image" is on line 1 already
    --
    deploy/compose.yaml:1:30: tag "!env" is not supported
    --
    deploy/compose.yaml:1:25: while parsing node, found unknown anchor
    --
    deploy/compose.yaml:1:13: a key that is not a text
    --
    deploy/compose.yaml:2:2: tabs disallowed within this context (block indentation)
    --
    deploy/compose.yaml:1:11: unclosed bracket '{'
    --
    deploy/compose.yaml:1:19: an alias within the node that it names
    "#);
}

#[test]
fn services_that_wait_for_each_other_are_named() {
    let text = "services:\n  a: { image: i, depends_on: [b] }\n  b: { image: i, depends_on: [c] }\n  \
                c: { image: i, depends_on: [b] }\n  d: { image: i }\n";
    insta::assert_snapshot!(problems(text), @r#"deploy/compose.yaml:3:31: services that wait for each other: "b", "c""#);
}

#[test]
fn an_alias_bomb_ends_early() {
    let mut text = "x-0: &x0 [a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*x{}", level - 1); 9].join(", ");
        text.push_str(&format!("x-{level}: &x{level} [{list}]\n"));
    }
    text.push_str("services: { a: { image: i } }\n");
    let started = std::time::Instant::now();
    assert!(problems(&text).contains("more than 20000 values"), "{}", problems(&text));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_alias_of_a_long_text_is_no_bomb_either() {
    // Each copy counts as one value, and a file of 300 kB would become a gigabyte.
    let mut text =
        format!("x-long: &long {}\nservices: {{ a: {{ image: i, labels: {{\n", "a".repeat(100_000));
    (0..400).for_each(|key| text.push_str(&format!("  k{key}: *long,\n")));
    text.push_str("} } }\n");
    assert!(problems(&text).contains("aliases that repeat more than 4194304 bytes"), "{}", problems(&text));
    let merged = text
        .replace("labels: {", "labels: { <<: &all {")
        .replace("} } }", "} } }, b: { labels: { <<: *all } } }");
    assert!(problems(&merged).contains("aliases that repeat more than"), "{}", problems(&merged));
}

#[test]
fn a_merge_bomb_and_deep_nesting_end_early() {
    let mut text = "x-0: &x0 { k: { a: 1 } }\n".to_owned();
    for level in 1..40 {
        text.push_str(&format!("x-{level}: &x{level} {{ <<: *x{0}, k{level}: *x{0} }}\n", level - 1));
    }
    text.push_str("services: { a: { image: i } }\n");
    assert!(parse(&file(), text.as_bytes()).is_err());
    for deep in ["[".repeat(5000), "{a: ".repeat(5000), "- ".repeat(5000)] {
        assert!(parse(&file(), deep.as_bytes()).is_err());
    }
}

#[test]
fn duration_zero_is_a_healthchecks_own_business() {
    let (compose, _) = accepted("services: { a: { image: i, healthcheck: { test: x, start_period: 0s } } }");
    assert_eq!(compose.services[0].healthcheck.as_ref().unwrap().start_period, Some(Duration::ZERO));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&file(), &bytes);
    }

    #[test]
    fn a_full_file_with_some_bytes_changed_does_not_panic(
        changes in proptest::collection::vec((0..FULL.len(), any::<u8>()), 1..4)
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Err(errors) = parse(&file(), &bytes) {
            prop_assert!(!errors.problems.is_empty());
            prop_assert!(!errors.problems.iter().any(|problem| problem.to_string().chars().any(char::is_control)));
        }
    }

    #[test]
    fn structure_at_random_does_not_panic(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "services", ": ", ":\n", "  ", "- ", "\n", "[", "]", "{", "}", "&a ", "*a", "<<", "a", "!!str ", "!x ",
                "image", "volumes", "\"", "'", "|\n", ">\n", "#", "---\n", "? ", "${A:-", "}", "$", "%", "\t", ",",
            ]),
            0..60,
        )
    ) {
        let _ = parse(&file(), pieces.concat().as_bytes());
    }
}

#[test]
fn limits_are_taken_in_both_of_composes_forms() {
    let text = "
services:
  a: { image: a, mem_limit: 48m, cpus: 0.5, pids_limit: 20 }
  b: { image: b, cpus: \"2\", deploy: { resources: { limits: { memory: 1g, cpus: \"3\", pids: 9 } } } }
  c: { image: c }
";
    let (compose, _) = accepted(text);
    let limits: Vec<Limits> = compose.services.iter().map(|service| service.limits).collect();
    assert_eq!(limits[0], Limits { memory_bytes: 48 << 20, cpu_millis: 500, pids: 20, disk_bytes: 0 });
    assert_eq!(limits[1], Limits { memory_bytes: 1 << 30, cpu_millis: 2000, pids: 9, disk_bytes: 0 });
    assert_eq!(limits[2], Limits::default());
    let bad = "services:\n  a: { image: a, mem_limit: 1k, cpus: many }\n";
    insta::assert_snapshot!(problems(bad), @r#"
    deploy/compose.yaml:2:29: "mem_limit" is "1k": write a size such as 65536, "64k", "64m" or "1g", at least "6m"
    deploy/compose.yaml:2:39: "cpus" is "many": write a number of processors from 0.01 to 1024, such as 2 or 0.5
    "#);
}
