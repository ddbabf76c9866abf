// Andon's reporter for Jest 28 and newer: lists tests, and reports each as it ends. See andon_events.cjs.
//
// Jest has no list of tests: a discovery runs with a name pattern that matches nothing, and every test is seen as skipped.
'use strict';

const { send, clean, message, idOf, Names, isDiscovery } = require('./andon_events.cjs');

const OUTCOMES = { passed: 'passed', failed: 'failed' };

module.exports = class AndonReporter {
  constructor() {
    this.files = new Map();
  }

  // What is known of a file: which tests were told already.
  of(file) {
    if (!this.files.has(file)) this.files.set(file, { names: new Names(), told: new Map() });
    return this.files.get(file);
  }

  onTestCaseStart(test, info) {
    if (isDiscovery || !info.ancestorTitles) return;
    send({ e: 'start', id: this.of(test.path).names.next(idOf(test.path, [...info.ancestorTitles, info.title])) });
  }

  onTestCaseResult(test, result) {
    if (isDiscovery) return;
    const { names, told } = this.of(test.path);
    const id = idOf(test.path, [...result.ancestorTitles, result.title]);
    told.set(id, (told.get(id) ?? 0) + 1);
    this.tell(names.take(id), result);
  }

  tell(id, result) {
    const failures = (result.failureMessages ?? []).join('\n');
    const outcome = OUTCOMES[result.status] ?? 'skipped';
    const ms = result.duration ?? 0;
    const why = result.status === 'todo' ? 'todo' : '';
    send({ e: 'result', id, outcome, ms, message: message(failures) || why, log: clean(failures) });
  }

  onTestResult(test, result) {
    const { names, told } = this.of(test.path);
    const broken = result.testExecError ?? (result.testResults.length === 0 ? result.failureMessage : undefined);
    if (broken) {
      const log = clean(result.failureMessage ?? broken.stack ?? broken.message ?? broken);
      send({ e: 'collect-error', id: idOf(test.path, []), message: message(log), log });
    }
    for (const one of result.testResults) {
      const id = idOf(test.path, [...one.ancestorTitles, one.title]);
      if (isDiscovery) {
        send({ e: 'test', id: names.take(id) });
      } else if ((told.get(id) ?? 0) > 0) {
        told.set(id, told.get(id) - 1);
      } else {
        // Skipped, or of a runner that does not tell of single tests.
        this.tell(names.take(id), one);
      }
    }
  }

  onRunComplete() {
    send({ e: 'end' });
  }
};
