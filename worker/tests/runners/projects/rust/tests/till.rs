#[test]
fn sells() {}
