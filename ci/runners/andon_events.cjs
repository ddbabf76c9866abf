// Andon's words, for its own files inside JavaScript test runners: events out, names of tests, rebases.
//
// Works on Node 18 and newer, needs nothing else, and must not know Docker, lanes or the farm. Events are those of
// andon_pytest.py, one JSON object a line, to the path in ANDON_RUNNER_EVENTS (a named pipe, or a file).
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

// Longest text of one kind in one event, in characters: half from its start, half from its end.
const TEXT_MAX = 200000;
const MESSAGE_MAX = 4000;
// A rebase is done, or has failed for good, within this.
const REBASE_LIMIT_MS = 1800 * 1000;

let events;

function send(event) {
  if (events === undefined) {
    events = fs.openSync(process.env.ANDON_RUNNER_EVENTS, fs.constants.O_WRONLY | fs.constants.O_APPEND);
  }
  let data = Buffer.from(`${JSON.stringify(event)}\n`);
  while (data.length > 0) {
    try {
      data = data.subarray(fs.writeSync(events, data));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function clean(text) {
  text = String(text ?? '').replace(/\u001b\[[0-9;]*m/g, '');
  if (text.length > TEXT_MAX) {
    const half = TEXT_MAX / 2;
    text = `${text.slice(0, half)}\n[… ${text.length - TEXT_MAX} characters left out …]\n${text.slice(-half)}`;
  }
  return text.toWellFormed ? text.toWellFormed() : text;
}

const message = (text) => clean(text).trim().split('\n').slice(0, 20).join('\n').slice(0, MESSAGE_MAX);

// A title as part of an id: what is no text becomes U+FFFD, which Andon takes for any character.
const title = (text) => clean(text).replace(/[\u0000-\u001f\u007f-\u009f]/g, '\ufffd');

// `path/file.test.js::outer::inner`, relative to the working folder.
const idOf = (file, titles) => [path.relative(process.cwd(), file), ...titles.map(title)].join('::');

// Tests that share a name are told apart by their order: `name`, `name #2`.
class Names {
  constructor() {
    this.seen = new Map();
  }

  // The id that the next test of this name has.
  next(id) {
    const count = this.seen.get(id) ?? 0;
    return count === 0 ? id : `${id} #${count + 1}`;
  }

  take(id) {
    const next = this.next(id);
    this.seen.set(id, (this.seen.get(id) ?? 0) + 1);
    return next;
  }
}

// `POST /rebase` on ANDON_SOCKET; answers with what came back, `{driver, us}`.
function rebase() {
  const socketPath = process.env.ANDON_SOCKET;
  if (!socketPath) return Promise.reject(new Error('there is no ANDON_SOCKET: these tests do not run in a lane of Andon\'s'));
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, path: '/rebase', method: 'POST', host: 'andon', agent: false }, (answer) => {
      let said = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece) => { said += piece; });
      answer.on('end', () => (answer.statusCode === 200 ? resolve(JSON.parse(said)) : reject(new Error(`the stack was not put back: ${said.trim()}`))));
    });
    request.setTimeout(REBASE_LIMIT_MS, () => request.destroy(new Error('the stack was not put back in time')));
    request.on('error', reject);
    request.end();
  });
}

const isDiscovery = process.env.ANDON_RUNNER_MODE === 'discover';

module.exports = { send, clean, message, idOf, Names, rebase, isDiscovery };
