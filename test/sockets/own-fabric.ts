/** Imported for what it does: the test file has a fabric of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

const directory = mkdtempSync(join(tmpdir(), 'isthmus-sockets-'));
after(() => rmSync(directory, { recursive: true, force: true }));
Object.assign(process.env, { ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '500' });
