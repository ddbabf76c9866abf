// What test files get for `node:test` where Andon lists or picks their tests: see andon_node.mjs.
const all = globalThis[Symbol.for('andon.node.test')];

export default all;
export const { test, it, describe, suite, before, after, beforeEach, afterEach, mock, run, snapshot, assert } = all;
