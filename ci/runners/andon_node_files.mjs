// Lists the tests of a project that uses node:test: finds its files as Node does, and loads each under andon_node.mjs.
//
// Called with Node's own options, which the files are loaded with, and with files or folders; without any with the working folder.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const { send, clean, message } = createRequire(import.meta.url)('./andon_events.cjs');

const FILES_MAX = 20000;
// As `node --test` has it: by the file's name, or by a folder `test`.
const NAMED = /^(?:test|test-.+|.+[.\-_]test)\.[cm]?js$/;
const CODE = /\.[cm]?js$/;

function* search(folder, within) {
  const entries = fs.readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const at = path.join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'node_modules' && entry.name !== '.git') yield* search(at, within || entry.name === 'test');
    } else if (entry.isFile() && (NAMED.test(entry.name) || (within && CODE.test(entry.name)))) {
      yield at;
    }
  }
}

const words = process.argv.slice(2);
const options = words.filter((word) => word.startsWith('-'));
const places = words.filter((word) => !word.startsWith('-'));
const files = new Set();
for (const place of places.length > 0 ? places : ['.']) {
  if (fs.statSync(place).isFile()) files.add(path.normalize(place));
  else for (const file of search(place, path.basename(path.resolve(place)) === 'test')) files.add(path.normalize(file));
}
if (files.size > FILES_MAX) throw new Error(`there are more than ${FILES_MAX} test files`);
const preload = fileURLToPath(new URL('./andon_node.mjs', import.meta.url));
let broken = 0;
for (const file of files) {
  const done = spawnSync(process.execPath, [...options, '--import', preload, file], { stdio: ['ignore', 'inherit', 'pipe'] });
  if (done.status !== 0) {
    broken += 1;
    const log = clean(done.stderr);
    send({ e: 'collect-error', id: file, message: message(log), log });
  }
}
if (broken === 0) send({ e: 'end' });
process.exitCode = broken === 0 ? 0 : 1;
