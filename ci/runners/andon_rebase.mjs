// For projects whose runner Andon does not tell to ask for rebases (Vitest, Mocha, whatever runs on Node): the function that asks,
// and a hook that asks before each test but the first. Needs ANDON_SOCKET in the environment.
//
// Put into a folder `node_modules` beside andon_events.cjs: Vite reads nothing else from outside of a project.
import { createRequire } from 'node:module';

const { rebase } = createRequire(import.meta.url)('../andon_events.cjs');

// Setup files are run anew for each file of tests: what counts is that something ran on the stack.
const used = Symbol.for('andon.used');

// For `beforeEach`.
const between = () => async () => {
  if (process[used]) await rebase();
  process[used] = true;
};

export { rebase, between };
