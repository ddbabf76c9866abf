// Jest's own runner of test files, which has the stack put back before each test but the first. See andon_events.cjs.
//
// Jest waits for the environment at each of its runner's events: a rebase stands before the test's hooks, and outside its limit.
'use strict';

const path = require('node:path');
const { rebase } = require('./andon_events.cjs');

let used = false;

module.exports = async function andonRunner(globalConfig, config, environment, runtime, testPath, send) {
  // The project's own: found as Jest finds it.
  const jest = require.resolve('jest', { paths: [config.rootDir, process.cwd()] });
  const core = path.dirname(require.resolve('@jest/core', { paths: [jest] }));
  const circus = require(require.resolve('jest-circus/runner', { paths: [jest, core] }));
  const own = environment.handleTestEvent?.bind(environment);
  // A test that is skipped starts, too, but neither its hooks nor its function do.
  let begins = false;
  environment.handleTestEvent = async (event, state) => {
    if (event.name === 'test_start') {
      begins = true;
    } else if (event.name === 'test_skip' || event.name === 'test_todo') {
      begins = false;
    } else if (begins && (event.name === 'hook_start' || event.name === 'test_fn_start')) {
      begins = false;
      if (used) await rebase();
      used = true;
    }
    if (own) await own(event, state);
  };
  return circus(globalConfig, config, environment, runtime, testPath, send);
};
