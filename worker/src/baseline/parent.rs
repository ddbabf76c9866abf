//! Which baseline a new one is built on.
//!
//! ```text
//!   steps wanted:   seed ─> migrate {1,2,3} ─> fixtures
//!   there are:      seed ─> migrate {1,2}                 grows: migrate is run on it, then fixtures
//!                   seed                                  prefix: migrate and fixtures are run on it
//! ```
//!
//! Pure. The state after the most steps wins; after as many, the one whose steps are all done over one on which a step has to
//! grow; among those, the one with the most files, then one that is in this worker's pool. Invariant: what is built on a
//! parent is, by the keys or by the promise of a step that `grows`, what a build from nothing makes.

use andon_proto::{BaselineInput, BaselineManifest, BaselineStep};

use super::key::Chain;

/// A baseline that may be built upon.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) manifest: BaselineManifest,
    /// In this worker's pool.
    pub(crate) here: bool,
}

/// What to build on.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) candidate: Candidate,
    /// How many steps need not be run.
    pub(crate) done: usize,
    /// The step after those is run on a state that was made with fewer of its files; so many are new.
    pub(crate) grows_by: Option<usize>,
}

/// A published baseline and the states that were kept on the way to it, each as a manifest of its own.
pub(crate) fn with_prefixes(manifest: BaselineManifest) -> Vec<BaselineManifest> {
    let mut all = Vec::with_capacity(manifest.prefixes.len() + 1);
    for prefix in &manifest.prefixes {
        let steps = usize::try_from(prefix.steps).unwrap_or(usize::MAX);
        let Some(last) = steps.checked_sub(1).and_then(|last| manifest.steps.get(last)) else { continue };
        let labels = manifest.labels.iter().filter(|label| !label.key.starts_with("dev.andon.baseline."));
        all.push(BaselineManifest {
            key: last.key.clone(),
            services: manifest.services.clone(),
            trees: prefix.trees.clone(),
            labels: labels.cloned().collect(),
            built_unix_ms: prefix.built_unix_ms,
            build_ms: prefix.build_ms,
            project: manifest.project.clone(),
            root_key: manifest.root_key.clone(),
            steps: manifest.steps[..steps].to_vec(),
            parent_key: prefix.parent_key.clone(),
            artifact: prefix.artifact.clone(),
            prefixes: Vec::new(),
            proofs: Vec::new(),
        });
    }
    all.push(manifest);
    all
}

/// The best of the candidates for these steps, if any serves.
pub(crate) fn choose(chain: &Chain, steps: &[BaselineStep], candidates: &[Candidate]) -> Option<Choice> {
    for done in (0..=chain.steps()).rev() {
        let exact = candidates.iter().filter(|candidate| candidate.manifest.key == chain.after(done));
        if let Some(candidate) = exact.max_by_key(|candidate| candidate.here) {
            return Some(Choice { candidate: candidate.clone(), done, grows_by: None });
        }
        let Some(before) = done.checked_sub(1) else { break };
        let grown = candidates.iter().filter_map(|candidate| {
            let by = grows_by(&candidate.manifest, chain.after(before), before, &steps[before])?;
            Some((candidate, by))
        });
        let best = grown.min_by_key(|(candidate, by)| (*by, !candidate.here));
        if let Some((candidate, by)) = best {
            return Some(Choice { candidate: candidate.clone(), done: before, grows_by: Some(by) });
        }
    }
    None
}

/// How many files the step has beyond those that the manifest's last step had, where it may be run on that state.
fn grows_by(
    manifest: &BaselineManifest,
    key_before: &str,
    steps_before: usize,
    step: &BaselineStep,
) -> Option<usize> {
    let last = manifest.steps.get(steps_before)?;
    let previous = match steps_before.checked_sub(1) {
        Some(previous) => &manifest.steps[previous].key,
        None => &manifest.root_key,
    };
    let fits = manifest.steps.len() == steps_before + 1
        && previous == key_before
        && (step.grows && last.grows)
        && last.run == step.run
        && last.files.len() < step.files.len()
        && is_part(&last.files, &step.files);
    fits.then(|| step.files.len() - last.files.len())
}

/// Whether every file of `few` is in `many`, as it is there.
fn is_part(few: &[BaselineInput], many: &[BaselineInput]) -> bool {
    let many: std::collections::HashMap<&str, &str> =
        many.iter().map(|file| (file.path.as_str(), file.digest.as_str())).collect();
    few.iter().all(|file| many.get(file.path.as_str()) == Some(&file.digest.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::{BaselinePrefix, BaselineSpec, BaselineStepDone, KeyValue, Stack};

    /// Steps by their commands and files; those with files grow.
    fn wanted(steps: &[(&str, &[&str])]) -> (Chain, Vec<BaselineStep>) {
        let steps: Vec<BaselineStep> = steps
            .iter()
            .map(|(run, files)| BaselineStep {
                run: vec![(*run).to_owned()],
                inputs_digest: files.join(","),
                grows: !files.is_empty(),
                files: files.iter().map(|file| input(file)).collect(),
                ..BaselineStep::default()
            })
            .collect();
        let spec = BaselineSpec { steps: steps.clone(), ..BaselineSpec::default() };
        (Chain::new(&Stack::default(), &[], &spec), steps)
    }

    /// `path` or `path=content`.
    fn input(file: &str) -> BaselineInput {
        let (path, digest) = file.split_once('=').unwrap_or((file, ""));
        BaselineInput { path: path.to_owned(), digest: digest.to_owned() }
    }

    fn made(steps: &[(&str, &[&str])], here: bool) -> Candidate {
        let (chain, steps) = wanted(steps);
        let done = steps.iter().enumerate().map(|(place, step)| BaselineStepDone {
            key: chain.after(place + 1).to_owned(),
            run: step.run.clone(),
            grows: step.grows,
            files: step.files.clone(),
            ..BaselineStepDone::default()
        });
        let manifest = BaselineManifest {
            key: chain.key().to_owned(),
            root_key: chain.root().to_owned(),
            steps: done.collect(),
            ..BaselineManifest::default()
        };
        Candidate { manifest, here }
    }

    fn chosen(
        wants: &[(&str, &[&str])],
        candidates: &[Candidate],
    ) -> Option<(usize, Option<usize>, String, bool)> {
        let (chain, steps) = wanted(wants);
        let choice = choose(&chain, &steps, candidates)?;
        let Candidate { manifest, here } = choice.candidate;
        Some((choice.done, choice.grows_by, manifest.key, here))
    }

    #[test]
    fn the_longest_prefix_is_the_parent_and_one_that_is_here_goes_first() {
        let all = [
            made(&[("a", &[])], true),
            made(&[("a", &[]), ("b", &[])], false),
            made(&[("a", &[]), ("b", &[])], true),
        ];
        let (done, grows, key, here) = chosen(&[("a", &[]), ("b", &[]), ("c", &[])], &all).unwrap();
        assert_eq!((done, grows, key, here), (2, None, all[1].manifest.key.clone(), true));
        let (done, _, key, _) = chosen(&[("a", &[]), ("x", &[]), ("c", &[])], &all).unwrap();
        assert_eq!((done, key), (1, all[0].manifest.key.clone()));
        assert!(chosen(&[("x", &[]), ("b", &[])], &all).is_none(), "a change of the first step rebuilds all");
    }

    #[test]
    fn a_step_grows_on_the_state_with_the_most_of_its_files() {
        let all = [
            made(&[("seed", &[])], true),
            made(&[("seed", &[]), ("m", &["1"])], true),
            made(&[("seed", &[]), ("m", &["1", "2"])], false),
        ];
        let key = |place: usize| all[place].manifest.key.clone();
        let wants: [(&str, &[&str]); 3] = [("seed", &[]), ("m", &["1", "2", "3"]), ("after", &[])];
        assert_eq!(chosen(&wants, &all), Some((1, Some(1), key(2), false)));
        let wants: [(&str, &[&str]); 2] = [("seed", &[]), ("m", &["1", "3"])];
        assert_eq!(chosen(&wants, &all), Some((1, Some(1), key(1), true)));
    }

    #[test]
    fn an_edited_a_removed_or_a_moved_file_is_no_growth() {
        let all = [made(&[("seed", &[])], true), made(&[("seed", &[]), ("m", &["1=a", "2=b"])], true)];
        for files in [&["1=x", "2=b", "3"][..], &["1=a"], &["1=a", "3=b"], &["1=a", "2=b"]] {
            let (done, grows, key, _) = chosen(&[("seed", &[]), ("m", files)], &all).unwrap();
            let same = files == ["1=a", "2=b"];
            assert_eq!((done, grows), (if same { 2 } else { 1 }, None), "{files:?}");
            assert_eq!(key, all[usize::from(same)].manifest.key);
        }
        // Nor on another seed, by another command, or where a step after it was run already.
        let more: [(&str, &[&str]); 2] = [("seed", &[]), ("m", &["1=a", "2=b", "3"])];
        let others = [
            made(&[("other", &[]), ("m", &["1=a", "2=b"])], true),
            made(&[("seed", &[]), ("n", &["1=a", "2=b"])], true),
            made(&[("seed", &[]), ("m", &["1=a", "2=b"]), ("after", &[])], true),
        ];
        assert_eq!(chosen(&more, &others), None);
        // Nor where either side does not promise it.
        let mut silent = all[1].clone();
        silent.manifest.steps[1].grows = false;
        assert_eq!(chosen(&more, &[silent]), None);
    }

    #[test]
    fn the_states_kept_on_the_way_are_candidates_of_their_own() {
        let mut last = made(&[("a", &[]), ("b", &[]), ("c", &[])], false).manifest;
        let label = |key: &str| KeyValue { key: key.into(), value: "x".into() };
        last.labels = vec![label("team"), label("dev.andon.baseline.key")];
        last.prefixes = vec![
            BaselinePrefix { steps: 2, build_ms: 7, ..BaselinePrefix::default() },
            BaselinePrefix { steps: 9, ..BaselinePrefix::default() },
            BaselinePrefix::default(),
        ];
        let all = with_prefixes(last.clone());
        assert_eq!(all.len(), 2, "what makes no sense is left out");
        assert_eq!((all[0].key.as_str(), all[0].steps.len()), (last.steps[1].key.as_str(), 2));
        assert_eq!((all[0].build_ms, all[0].labels.len(), &all[1]), (7, 1, &last));
    }
}
