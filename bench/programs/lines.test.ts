import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import type { MessagePort } from 'node:worker_threads';
import { portLine } from './lines.ts';

test('what was transferred is handed back, once; else memory is new', () => {
  const posted: Uint8Array[] = [];
  const port = Object.assign(new EventEmitter(), { postMessage: (message: Uint8Array) => void posted.push(message) });
  const line = portLine(port as unknown as MessagePort, 'port-transfer', (bytes) => line.send(bytes));
  const message = new Uint8Array(5);
  port.emit('message', message);
  line.send(5);
  port.emit('message', new Uint8Array(7));
  line.send(1);
  assert.equal(posted[0], message);
  assert.notEqual(posted[1], message);
  assert.deepEqual(
    posted.map(({ length }) => length),
    [5, 5, 7, 1],
  );
});
