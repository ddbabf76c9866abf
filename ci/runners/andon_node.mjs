// Andon in node:test, Node 18.19 and newer: lists tests, registers exactly those asked for, and reports each as it ends.
//
// Loaded by `--import` before a test file, and by `--test-reporter` (the same module). `node:test` is replaced by a look-alike:
// Node itself has no list of tests, and its name patterns mean different things from version to version. What a test makes with
// `t.test` is its own part and passes through. See andon_events.cjs.
import { AsyncLocalStorage } from 'node:async_hooks';
import fs from 'node:fs';
import Module, { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { send, clean, message, idOf, Names, rebase, isDiscovery } = require('./andon_events.cjs');
const real = require('node:test');

const file = process.argv[1];
const asked = new Set(isDiscovery ? [] : JSON.parse(fs.readFileSync(process.env.ANDON_RUNNER_JOB, 'utf8')));
const scopes = new AsyncLocalStorage();
const names = new Names();
// By id without a number: what was registered and has not ended, in order.
const registered = new Map();
// One of the asked for: what begins meanwhile is its own part.
let running = false;
const NAMED = { test: 'test', it: 'test', describe: 'suite', suite: 'suite' };

function parse(args) {
  let [name, options, fn] = args;
  if (typeof name === 'function') [name, options, fn] = [undefined, undefined, name];
  else if (name !== null && typeof name === 'object') [name, options, fn] = [undefined, name, options];
  else if (typeof options === 'function') [options, fn] = [undefined, options];
  return { name: name ?? (fn?.name || '<anonymous>'), options: options ?? {}, fn };
}

// Says that the test runs, while it does. A test with a callback is one by the number of its parameters.
function watched(id, fn) {
  const begin = () => {
    running = true;
    send({ e: 'start', id });
  };
  const end = () => { running = false; };
  if (fn.length > 1) {
    return function begun(t, done) {
      begin();
      return fn.call(this, t, (...said) => { end(); done(...said); });
    };
  }
  return async function begun(t) {
    begin();
    try {
      return await fn.call(this, t);
    } finally {
      end();
    }
  };
}

function asTest(call) {
  return (...args) => {
    const { name, options, fn } = parse(args);
    const plain = idOf(file, [...(scopes.getStore() ?? []), name]);
    const id = names.take(plain);
    if (isDiscovery) send({ e: 'test', id });
    if (!asked.has(id)) return Promise.resolve();
    registered.set(plain, [...(registered.get(plain) ?? []), id]);
    if (!fn) return call(name, options);
    return call(name, options, watched(id, fn));
  };
}

function asSuite(call) {
  return (...args) => {
    const { name, options, fn } = parse(args);
    const path = [...(scopes.getStore() ?? []), name];
    if (isDiscovery) return Promise.resolve(fn ? scopes.run(path, fn) : undefined);
    const within = `${idOf(file, path)}::`;
    if (!fn || ![...asked].some((id) => id.startsWith(within))) return Promise.resolve();
    return call(name, options, function body(...context) { return scopes.run(path, () => fn.apply(this, context)); });
  };
}

function lookAlike() {
  const made = {};
  for (const [name, kind] of Object.entries(NAMED)) {
    const from = real[name] ?? (kind === 'test' ? real.test : real.describe);
    const wrap = kind === 'test' ? asTest : asSuite;
    made[name] = Object.assign(wrap(from), { skip: wrap(from.skip), todo: wrap(from.todo), only: wrap(from) });
  }
  const hook = (name) => (isDiscovery ? () => {} : real[name]);
  const hooks = Object.fromEntries(['before', 'after', 'beforeEach', 'afterEach'].map((name) => [name, hook(name)]));
  // `import test from 'node:test'`, and the same function with all the rest on it.
  const all = Object.assign(made.test, made, hooks, { mock: real.mock, run: real.run, snapshot: real.snapshot, assert: real.assert });
  return Object.assign(all, { default: all });
}

const shown = lookAlike();
globalThis[Symbol.for('andon.node.test')] = shown;
const load = Module._load;
Module._load = function andonLoad(request, ...rest) {
  return request === 'node:test' ? shown : load.call(this, request, ...rest);
};
const shim = new URL('./andon_node_shim.mjs', import.meta.url).href;
const here = import.meta.url;
Module.register(`data:text/javascript,${encodeURIComponent(`
  export async function resolve(specifier, context, next) {
    if (specifier === 'node:test' && context.parentURL !== ${JSON.stringify(here)}) {
      return { url: ${JSON.stringify(shim)}, shortCircuit: true };
    }
    return next(specifier, context);
  }`)}`);

if (!isDiscovery && process.env.ANDON_RUNNER_REBASE) {
  let used = false;
  real.beforeEach(async () => {
    if (running) return;
    if (used) await rebase();
    used = true;
  });
}
if (isDiscovery) process.on('exit', (code) => { if (code === 0) send({ e: 'end' }); });

// The reporter.
export default async function* andon(source) {
  const path = [];
  for await (const { type, data } of source) {
    if (type === 'test:start') {
      path.length = data.nesting;
      path.push(data.name);
    } else if (type === 'test:pass' || type === 'test:fail') {
      const titles = [...path.slice(0, data.nesting), data.name];
      const id = registered.get(idOf(file, titles))?.shift();
      if (id !== undefined) tell(id, type === 'test:pass', data);
      yield `${'  '.repeat(data.nesting)}${type === 'test:pass' ? 'ok' : 'not ok'} - ${data.name}\n`;
    } else if (type === 'test:stdout' || type === 'test:stderr') {
      yield data.message;
    } else if (type === 'test:diagnostic' && data.nesting > 0) {
      yield `# ${data.message}\n`;
    }
  }
  send({ e: 'end' });
}

function tell(id, passed, data) {
  const skipped = data.skip !== undefined || data.todo !== undefined;
  const why = [data.skip, data.todo].find((reason) => typeof reason === 'string') ?? '';
  const error = passed ? undefined : data.details?.error;
  const cause = error?.cause ?? error;
  const log = clean(cause?.stack ?? cause ?? '');
  const outcome = skipped ? 'skipped' : passed ? 'passed' : 'failed';
  const said = cause === undefined ? why : message(cause?.message ?? cause);
  send({ e: 'result', id, outcome, ms: data.details?.duration_ms ?? 0, message: said, log });
}
