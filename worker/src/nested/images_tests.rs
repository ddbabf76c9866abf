//! The image store on a plain folder, with a data root as the daemon lays it out.

use super::*;

struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// One image of two layers.
    fn new() -> Self {
        let root = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        root.write("image/overlay2/repositories.json", "{}");
        root.write("image/overlay2/imagedb/content/sha256/aa", "{\"rootfs\":{}}");
        for (layer, short) in [("one", "S1"), ("two", "S2")] {
            root.write(&format!("image/overlay2/layerdb/sha256/chain-{layer}/cache-id"), layer);
            root.write(&format!("overlay2/{layer}/link"), short);
            root.write(&format!("overlay2/{layer}/diff/bin/sh"), layer);
            root.write(&format!("overlay2/l/{short}"), "a link in a real data root");
        }
        // A container: its layer is nobody's image.
        root.write("image/overlay2/layerdb/mounts/c1/mount-id", "three");
        root.write("overlay2/three/link", "S3");
        root.write("overlay2/three/diff/tmp/litter", "x");
        root.write("containers/c1/config.v2.json", "{}");
        root
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("docker")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.data().join(path);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn store(&self) -> ImageStore {
        ImageStore::new(&self.data(), None)
    }

    fn shell_of(&self, layer: &str) -> String {
        fs::read_to_string(self.data().join("overlay2").join(layer).join("diff/bin/sh")).expect("readable")
    }
}

fn seal(root: &Root) -> Catalog {
    root.store().seal().expect("sealed").expect("there are images")
}

#[test]
fn a_renewed_data_root_has_the_images_and_nothing_of_the_containers() {
    let root = Root::new();
    assert_eq!(seal(&root).images, 1);
    let renewed = root.store().renew().expect("renewed");
    assert_eq!(renewed.images, 1);
    assert_eq!((root.shell_of("one"), root.shell_of("two")), ("one".into(), "two".into()));
    assert!(root.data().join("overlay2/l/S1").is_symlink());
    assert!(root.data().join("image/overlay2/imagedb/content/sha256/aa").is_file());
    assert!(!root.data().join("overlay2/three").exists() && !root.data().join("containers").exists());
    assert!(!root.data().join("image/overlay2/layerdb/mounts").exists());
    assert!(renewed.aside.join("containers/c1/config.v2.json").exists());
}

#[test]
fn the_key_follows_the_images_and_sealing_again_changes_nothing() {
    let root = Root::new();
    let first = seal(&root);
    assert_eq!(seal(&root), first);
    root.write("image/overlay2/imagedb/content/sha256/bb", "{}");
    let second = seal(&root);
    assert_ne!(first.key, second.key);
    assert_eq!(second.images, 2);
    assert_eq!(root.store().renew().expect("renewed").images, 2, "the newest is taken");
}

#[test]
fn a_data_root_whose_images_are_damaged_is_not_sealed_and_the_template_before_serves() {
    let root = Root::new();
    seal(&root);
    root.write("image/overlay2/repositories.json", "{\"Repositor");
    let refused = root.store().seal().expect_err("damaged").to_string();
    assert!(refused.contains("repositories.json is damaged"), "{refused}");
    assert_eq!(root.store().renew().expect("renewed").images, 1);
    assert!(root.store().seal().expect("whole again").is_some());
}

#[test]
fn a_template_that_is_not_as_it_was_sealed_is_not_used() {
    let root = Root::new();
    let sealed = seal(&root);
    let templates = root.folder.path().join("docker-images/templates");
    let file = templates.join(sealed.key).join("image/overlay2/repositories.json");
    fs::write(file, "{ }").expect("damaged");
    assert_eq!(root.store().renew().expect("renewed").images, 0);
    assert!(root.data().is_dir());
}

#[test]
fn a_template_without_one_of_its_layers_is_not_used() {
    let root = Root::new();
    seal(&root);
    remove(&root.folder.path().join("docker-images/layers/two")).expect("removed");
    assert_eq!(root.store().renew().expect("renewed").images, 0);
}

#[test]
fn an_agent_that_is_killed_between_the_move_and_the_link_of_a_layer_loses_nothing() {
    let root = Root::new();
    seal(&root);
    fs::remove_file(root.data().join("overlay2/one")).expect("the link");
    seal(&root);
    assert_eq!(root.shell_of("one"), "one");
}

#[test]
fn a_layer_goes_when_neither_a_template_nor_the_data_root_refers_to_it() {
    let root = Root::new();
    seal(&root);
    let layers = root.folder.path().join("docker-images/layers");
    let aside = root.store().renew().expect("renewed").aside;
    fs::create_dir_all(layers.join("stray/diff")).expect("made");
    delete(&root.store().discard().expect("set apart"));
    assert_eq!(names(&layers).expect("listed"), ["one", "two"]);
    assert!(!aside.exists());
    assert_eq!(root.shell_of("two"), "two", "removing the old data root removed its links alone");
}

#[test]
fn only_the_newest_templates_are_kept() {
    let root = Root::new();
    for image in ["b", "c", "d", "e"] {
        root.write(&format!("image/overlay2/imagedb/content/sha256/{image}"), "{}");
        seal(&root);
    }
    delete(&root.store().discard().expect("set apart"));
    assert_eq!(root.store().newest_first().expect("listed").len(), TEMPLATES_MAX);
    assert_eq!(root.store().renew().expect("renewed").images, 5);
}
