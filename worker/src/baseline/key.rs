//! A baseline's key: what would make another baseline.
//!
//! Pure. Invariant: every part is framed by its length, so that two different lists of parts never read the same.

use andon_proto::{BaselineSpec, Stack};
use prost::Message;

use crate::hands::ResolvedImage;

/// Grows when what a baseline holds, or how it is made, changes.
pub const FORMAT: u32 = 1;

/// The key of a stack with these images, in the order of its services.
#[must_use]
pub fn key_of(stack: &Stack, images: &[ResolvedImage], spec: &BaselineSpec) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(b"andon baseline");
    part(&FORMAT.to_le_bytes());
    // The compose file's own bytes do not count: a comment changes nothing.
    let meaning = Stack { compose_digest: String::new(), ..stack.clone() };
    part(&meaning.encode_to_vec());
    for image in images {
        // A build gives another id on each worker: what it was built from is what it is.
        let built = !image.build_key.is_empty();
        part(if built { b"build" } else { b"image" });
        part(if built { image.build_key.as_bytes() } else { image.id.as_bytes() });
    }
    part(&(spec.seed.len() as u64).to_le_bytes());
    for command in &spec.seed {
        part(command.as_bytes());
    }
    part(spec.inputs_digest.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Service;

    fn stack(names: &[&str]) -> Stack {
        let services = names.iter().map(|name| Service { name: (*name).to_owned(), ..Service::default() });
        Stack { services: services.collect(), compose_digest: "c".into() }
    }

    fn image(id: &str, build_key: &str) -> ResolvedImage {
        ResolvedImage { id: id.into(), reference: "r".into(), build_key: build_key.into() }
    }

    fn seeded(seed: &[&str], inputs: &str) -> BaselineSpec {
        BaselineSpec {
            seed: seed.iter().map(|command| (*command).to_owned()).collect(),
            inputs_digest: inputs.into(),
            ..BaselineSpec::default()
        }
    }

    #[test]
    fn everything_that_makes_another_baseline_makes_another_key() {
        let keys = [
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&[], "")),
            key_of(&stack(&["dc"]), &[image("1", "")], &seeded(&[], "")),
            key_of(&stack(&["db"]), &[image("2", "")], &seeded(&[], "")),
            key_of(&stack(&["db"]), &[image("2", "1")], &seeded(&[], "")),
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&["a", "b"], "")),
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&["ab"], "")),
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&["b", "a"], "")),
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&[], "x")),
            key_of(&stack(&["db"]), &[image("1", "")], &seeded(&["x"], "")),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[place + 1..].contains(key), "{place}");
        }
    }

    #[test]
    fn what_makes_no_other_baseline_keeps_the_key() {
        let key = key_of(&stack(&["db"]), &[image("1", "k")], &seeded(&["a"], "i"));
        let mut other = stack(&["db"]);
        other.compose_digest = "with a comment".into();
        let mut spec = seeded(&["a"], "i");
        spec.seed_timeout_ms = 5;
        assert_eq!(key_of(&other, &[image("2", "k")], &spec), key);
        assert_eq!(key.len(), 64);
    }
}
