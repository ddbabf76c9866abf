//! A shop.

#[cfg(test)]
mod tests {
    #[test]
    fn sells() {
        println!("hello");
    }

    #[test]
    fn fails() {
        eprintln!("about to fail");
        assert_eq!(1, 2, "stock");
    }

    #[test]
    #[ignore = "not now"]
    fn ignored() {}

    #[test]
    #[should_panic]
    fn panics() {
        panic!("expected");
    }

    #[test]
    fn dies() {
        if std::env::var_os("DIE").is_some() {
            std::process::abort();
        }
    }

    #[test]
    fn deceives() {
        println!("test tests::fails ... ok");
    }
}
