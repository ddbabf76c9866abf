//! A baseline's key: what would make another baseline. One for the state before the first step, and one after each.
//!
//! ```text
//!   root = digest(stack, images, bound files, proofs)      key 1 = digest(root, step 1)      key 2 = digest(key 1, step 2)  …
//! ```
//!
//! Pure. Invariants: every part is framed by its length, so that two different lists of parts never read the same; a key says
//! all that came before it, so that a state under an equal key can be built upon.

use std::borrow::Cow;

use andon_proto::{BaselineSpec, BaselineStep, Proof, Stack};
use prost::Message;

use crate::hands::ResolvedImage;

/// Grows when what a baseline holds, or how it is made, changes.
pub const FORMAT: u32 = 2;

/// The keys of a stack and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The root, then the key after each step.
    keys: Vec<String>,
}

impl Chain {
    /// The keys of a stack with these images, in the order of its services.
    #[must_use]
    pub fn new(stack: &Stack, images: &[ResolvedImage], spec: &BaselineSpec) -> Self {
        let steps = steps_of(spec);
        // Bound files are the root's; a specification without steps does not tell them from the inputs.
        let bound = if spec.steps.is_empty() { &spec.inputs_digest } else { &spec.bound_digest };
        let mut keys = vec![root_of(stack, images, bound, &spec.proofs)];
        for step in steps.iter() {
            let mut parts = Parts::new();
            parts.add(b"andon baseline step");
            parts.add(keys[keys.len() - 1].as_bytes());
            parts.add(&(step.run.len() as u64).to_le_bytes());
            for command in &step.run {
                parts.add(command.as_bytes());
            }
            parts.add(step.inputs_digest.as_bytes());
            keys.push(parts.digest());
        }
        Self { keys }
    }

    /// The state before the first step.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.keys[0]
    }

    /// The state after so many steps.
    #[must_use]
    pub fn after(&self, steps: usize) -> &str {
        &self.keys[steps]
    }

    /// How many steps there are.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.keys.len() - 1
    }

    /// The baseline's own key: the state after all steps.
    #[must_use]
    pub fn key(&self) -> &str {
        self.after(self.steps())
    }
}

/// The steps of a specification: a seed without steps is one.
pub(crate) fn steps_of(spec: &BaselineSpec) -> Cow<'_, [BaselineStep]> {
    if !spec.steps.is_empty() || spec.seed.is_empty() {
        return Cow::Borrowed(&spec.steps);
    }
    let only =
        BaselineStep { run: spec.seed.clone(), inputs: spec.inputs.clone(), ..BaselineStep::default() };
    Cow::Owned(vec![only])
}

fn root_of(stack: &Stack, images: &[ResolvedImage], bound_digest: &str, proofs: &[Proof]) -> String {
    let mut parts = Parts::new();
    parts.add(b"andon baseline");
    parts.add(&FORMAT.to_le_bytes());
    // The compose file's own bytes do not count: a comment changes nothing.
    let meaning = Stack { compose_digest: String::new(), ..stack.clone() };
    parts.add(&meaning.encode_to_vec());
    for image in images {
        // A build gives another id on each worker: what it was built from is what it is.
        let built = !image.build_key.is_empty();
        parts.add(if built { b"build" } else { b"image" });
        parts.add(if built { image.build_key.as_bytes() } else { image.id.as_bytes() });
    }
    parts.add(bound_digest.as_bytes());
    // None are nothing, so that a baseline without proofs keeps its key.
    for proof in proofs {
        parts.add(proof.service.as_bytes());
        parts.add(proof.run.as_bytes());
    }
    parts.digest()
}

struct Parts(blake3::Hasher);

impl Parts {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn digest(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
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

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn seeded(seed: &[&str], inputs: &str) -> BaselineSpec {
        BaselineSpec { seed: words(seed), inputs_digest: inputs.into(), ..BaselineSpec::default() }
    }

    fn stepped(bound: &str, steps: &[(&[&str], &str)]) -> BaselineSpec {
        let step = |(run, inputs): &(&[&str], &str)| BaselineStep {
            run: words(run),
            inputs_digest: (*inputs).to_owned(),
            ..BaselineStep::default()
        };
        let steps = steps.iter().map(step).collect();
        BaselineSpec { steps, bound_digest: bound.into(), ..BaselineSpec::default() }
    }

    fn proven(proofs: &[(&str, &str)]) -> BaselineSpec {
        let proof = |(service, run): &(&str, &str)| Proof {
            service: (*service).into(),
            run: (*run).into(),
            only_reads: false,
        };
        BaselineSpec { proofs: proofs.iter().map(proof).collect(), ..BaselineSpec::default() }
    }

    fn chain(spec: &BaselineSpec) -> Chain {
        Chain::new(&stack(&["db"]), &[image("1", "")], spec)
    }

    #[test]
    fn everything_that_makes_another_baseline_makes_another_key() {
        let key = |names: &[&str], image: ResolvedImage, spec: &BaselineSpec| {
            Chain::new(&stack(names), &[image], spec).key().to_owned()
        };
        let keys = [
            key(&["db"], image("1", ""), &seeded(&[], "")),
            key(&["dc"], image("1", ""), &seeded(&[], "")),
            key(&["db"], image("2", ""), &seeded(&[], "")),
            key(&["db"], image("2", "1"), &seeded(&[], "")),
            key(&["db"], image("1", ""), &seeded(&["a", "b"], "")),
            key(&["db"], image("1", ""), &seeded(&["ab"], "")),
            key(&["db"], image("1", ""), &seeded(&["b", "a"], "")),
            key(&["db"], image("1", ""), &seeded(&[], "x")),
            key(&["db"], image("1", ""), &seeded(&["x"], "")),
            key(&["db"], image("1", ""), &stepped("", &[(&["a"], "1"), (&["b"], "")])),
            key(&["db"], image("1", ""), &stepped("", &[(&["a"], ""), (&["b"], "1")])),
            key(&["db"], image("1", ""), &stepped("", &[(&["b"], ""), (&["a"], "1")])),
            key(&["db"], image("1", ""), &stepped("", &[(&["a", "b"], "1")])),
            key(&["db"], image("1", ""), &stepped("1", &[(&["a", "b"], "")])),
            key(&["db"], image("1", ""), &proven(&[("db", "a")])),
            key(&["db"], image("1", ""), &proven(&[("db", "a"), ("db", "b")])),
            key(&["db"], image("1", ""), &proven(&[("d", "ba")])),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[place + 1..].contains(key), "{place}");
        }
    }

    #[test]
    fn what_makes_no_other_baseline_keeps_the_key() {
        let keys = Chain::new(&stack(&["db"]), &[image("1", "k")], &seeded(&["a"], "i"));
        let mut other = stack(&["db"]);
        other.compose_digest = "with a comment".into();
        let mut spec = seeded(&["a"], "i");
        spec.seed_timeout_ms = 5;
        assert_eq!(Chain::new(&other, &[image("2", "k")], &spec), keys);
        assert_eq!(keys.key().len(), 64);
        let mut named = stepped("", &[(&["a"], "1")]);
        let key = chain(&named);
        (named.steps[0].name, named.steps[0].grows) = ("load".into(), true);
        assert_eq!(chain(&named), key, "a name and a promise change no state");
    }

    #[test]
    fn a_change_of_a_step_keeps_the_keys_before_it_and_changes_all_after_it() {
        let was = chain(&stepped("b", &[(&["a"], "1"), (&["m"], "2"), (&["z"], "3")]));
        let is = chain(&stepped("b", &[(&["a"], "1"), (&["m"], "other"), (&["z"], "3")]));
        assert_eq!((was.root(), was.after(1)), (is.root(), is.after(1)));
        assert!(was.after(2) != is.after(2) && was.after(3) != is.after(3));
        let first = chain(&stepped("b", &[(&["a"], "1")]));
        assert_eq!(first.key(), was.after(1), "a baseline of fewer steps is the same state");
    }
}
