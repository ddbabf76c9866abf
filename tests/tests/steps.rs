//! A baseline in steps, on the sample shop and a real database: what a commit changes is what its baseline costs.

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::stage;
use serde_json::Value;

const MIGRATE: &str = r#""""Applies the files of migrations/ that the database does not have yet, as every migration tool does."""
from pathlib import Path

import pymysql

with pymysql.connect(host="db", user="root", database="shop", autocommit=True) as connection:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS applied (name VARCHAR(99) PRIMARY KEY)")
    cursor.execute("SELECT name FROM applied")
    known = {name for (name,) in cursor.fetchall()}
    for path in sorted(Path("migrations").glob("*.sql")):
        if path.name not in known:
            cursor.execute(path.read_text())
            cursor.execute("INSERT INTO applied VALUES (%s)", path.name)
"#;

/// Says what the lane's database holds, and fails where it is not what the commit says.
const TEST: &str = r#"from pathlib import Path

import pymysql


def test_the_database_is_the_commits():
    with pymysql.connect(host="db", user="root", database="shop") as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT name FROM applied ORDER BY name")
        assert [name for (name,) in cursor.fetchall()] == sorted(path.name for path in Path("migrations").glob("*.sql"))
        cursor.execute("SELECT COUNT(*) FROM orders")
        assert cursor.fetchone() == (40_000,)
        cursor.execute("CHECKSUM TABLE orders, order_items, products")
        print(cursor.fetchall())
        for path in Path("migrations").glob("*.sql"):
            column = path.read_text().split()[-2]
            cursor.execute(f"SELECT {column} FROM products LIMIT 1")
"#;

const CONFIG: &str = r#"[stack]
compose = "compose.yaml"

[[baseline.step]]
name = "load"
run = ["python3 -m db.seed"]
inputs = ["db/**"]
keep = true

[[baseline.step]]
name = "migrate"
run = ["python3 migrate.py"]
inputs = ["migrations/**", "migrate.py"]
grows = true

[[suite]]
name = "unit"
image = { build = "ci" }
runner = "pytest"
args = ["tests/test_steps.py"]
timeout = "30s"
"#;

/// The shop with migrations, its own tests left out.
fn shop() -> Project {
    let project = Project::from_fixture("../../ci/sample/shop");
    project.git(&["rm", "-q", "-r", "tests"]);
    project.replace("compose.yaml", "andon-sample/mysql:9.7", &stage("ANDON_TEST_DB_IMAGE"));
    project.write("andon.toml", CONFIG);
    project.write("migrate.py", MIGRATE);
    project.write("tests/test_steps.py", TEST);
    project
}

fn add_migration(project: &Project, name: &str) {
    let sql = format!("ALTER TABLE products ADD COLUMN {name} INT");
    project.write(&format!("migrations/{name}.sql"), &sql);
    project.commit(name);
}

/// Runs the commit; its baseline and what was said.
fn baseline(farm: &Farm, project: &Project) -> (Value, String) {
    let output = farm.run(&project.copy(), &["--project", "shop"]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let shown = farm.show(farm.newest());
    assert_eq!(shown["counts"]["passed"], 1, "{shown:#}");
    let key = shown["baseline_key"].as_str().expect("a baseline").to_owned();
    (farm.json(&["baseline", "inspect", &key]), said)
}

fn millis(baseline: &Value) -> u64 {
    baseline["build_ms"].as_u64().expect("a time")
}

#[test]
fn a_migration_costs_the_migration_and_a_change_of_the_seed_costs_all() {
    let project = shop();
    let farm = Farm::up(1, 1, &[]).with_database();
    add_migration(&project, "a1");
    let (first, said) = baseline(&farm, &project);
    assert!(said.contains("from nothing"), "{said}");
    assert_eq!(first["steps"][0]["kept"], true, "{first:#}");

    add_migration(&project, "a2");
    let (second, said) = baseline(&farm, &project);
    println!("first: {} ms, with one more migration: {} ms\n{said}", millis(&first), millis(&second));
    assert_eq!(second["parent_key"], first["key"]);
    assert!(said.contains("1 of 2 step(s) are done there, step 2 grows by 1 file(s)"), "{said}");
    assert!(!said.contains("python3 -m db.seed"), "{said}");
    assert!(millis(&second) * 2 < millis(&first), "{} of {} ms", millis(&second), millis(&first));
    // What is stored of it is what the migration changed.
    let layers = |baseline: &Value| {
        let trees = baseline["trees"].as_array().expect("trees").clone();
        let data = trees.into_iter().find(|tree| tree["name"] == "volume/data").expect("the volume");
        let layers = data["layers"].as_array().expect("layers").clone();
        layers.iter().map(|layer| layer["blob_bytes"].as_u64().expect("a size")).collect::<Vec<_>>()
    };
    let stored = layers(&second);
    println!("layers of the volume: {stored:?}");
    assert!(
        stored.len() == layers(&first).len() + 1 && stored[stored.len() - 1] * 4 < stored[0],
        "{stored:?}"
    );

    // An edited migration is no growth: it is run on the state after the first step.
    project.write("migrations/a1.sql", "ALTER TABLE products ADD COLUMN b1 INT");
    project.commit("edited");
    let (edited, said) = baseline(&farm, &project);
    println!("with an edited migration: {} ms", millis(&edited));
    assert_eq!(edited["parent_key"], first["steps"][0]["key"]);
    assert!(said.contains("1 of 2 step(s) are done there\n"), "{said}");

    // The control: another seed, and nothing of what was there can be used.
    project.replace("db/seed.py", "Rows go in as text", "Rows go in as plain text");
    project.commit("another seed");
    let (control, said) = baseline(&farm, &project);
    println!("with another seed: {} ms", millis(&control));
    assert!(said.contains("from nothing") && said.contains("python3 -m db.seed"), "{said}");
    assert_eq!(control["parent_key"], control["steps"][0]["key"], "its own first step");
    assert!(millis(&second) * 2 < millis(&control), "{} of {} ms", millis(&second), millis(&control));
}
