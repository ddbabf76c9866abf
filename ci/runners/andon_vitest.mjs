// Andon's reporter for Vitest 3 and newer: lists tests, and reports each as it ends. See andon_events.cjs.
//
// Put into a folder `node_modules` beside andon_events.cjs: Vite reads nothing else from outside of a project.
// A discovery runs with a name pattern that matches nothing, and every test is seen as skipped.
import { createRequire } from 'node:module';

const { send, clean, message, idOf, Names, isDiscovery } = createRequire(import.meta.url)('../andon_events.cjs');

const OUTCOMES = { passed: 'passed', failed: 'failed' };

function titlesOf(test) {
  const titles = [];
  for (let at = test; at && at.type !== 'module'; at = at.parent) titles.unshift(at.name);
  return titles;
}

const idIn = (test) => idOf(test.module.moduleId, titlesOf(test));

export default class AndonReporter {
  // Ids are given by each test's place among those of its name, whatever ends first.
  ids = new Map();
  told = new Set();
  logs = new Map();

  onTestModuleCollected(module) {
    const names = new Names();
    for (const test of module.children.allTests()) {
      const id = names.take(idIn(test));
      this.ids.set(test.id, id);
      if (isDiscovery) send({ e: 'test', id });
    }
  }

  onUserConsoleLog(log) {
    if (log.taskId) this.logs.set(log.taskId, clean((this.logs.get(log.taskId) ?? '') + log.content));
  }

  onTestCaseReady(test) {
    const id = this.ids.get(test.id);
    if (!isDiscovery && id && test.options?.mode !== 'skip') send({ e: 'start', id });
  }

  onTestCaseResult(test) {
    const id = this.ids.get(test.id);
    const result = test.result();
    if (isDiscovery || !id || this.told.has(id) || result.state === 'pending') return;
    this.told.add(id);
    const failures = (result.errors ?? []).map((error) => error.stack || `${error.name}: ${error.message}`).join('\n');
    const printed = this.logs.get(test.id);
    const log = [failures && `--- failure ---\n${failures}`, printed && `--- console ---\n${printed}`].filter(Boolean).join('\n');
    send({
      e: 'result',
      id,
      outcome: OUTCOMES[result.state] ?? 'skipped',
      ms: test.diagnostic?.()?.duration ?? 0,
      message: message((result.errors ?? []).map((error) => error.message).join('\n')) || result.note || '',
      log: clean(log),
    });
  }

  onTestModuleEnd(module) {
    for (const test of module.children.allTests()) this.onTestCaseResult(test);
  }

  onTestRunEnd(modules) {
    for (const module of modules) {
      for (const error of module.errors()) {
        const log = clean(error.stack || error.message);
        send({ e: 'collect-error', id: idOf(module.moduleId, []), message: message(error.message), log });
      }
    }
    send({ e: 'end' });
  }
}
