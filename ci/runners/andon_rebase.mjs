// For projects: a file for `setupFiles` of Vitest, that has the stack put back before each test but the first; and the function
// itself, for any runner on Node. Outside of Andon it does nothing.
import { createRequire } from 'node:module';

const { rebase } = createRequire(import.meta.url)('./andon_events.cjs');

// Setup files are run anew for each file of tests, in one process or several: what counts is that something ran on the stack.
const used = Symbol.for('andon.used');

export { rebase };

if (process.env.ANDON_SOCKET && process.env.VITEST) {
  const { beforeEach } = await import('vitest');
  beforeEach(async () => {
    if (globalThis[used]) await rebase();
    globalThis[used] = true;
  });
}
