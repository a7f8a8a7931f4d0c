/** TLS and HTTP/2 that are led through JavaScript look to a program as those that are not. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { promisify } from 'node:util';
import { cannotMove, ROOT } from './commands.ts';
import { Stage } from './two-programs.ts';

const PROGRAM = join(ROOT, 'test/integration/programs/tls.mjs');

/** What looks otherwise, and why. */
const DEVIATIONS = ['onePartAtATime']; // ticks do not run between the parts of a body in one chunk: the next listener is not there yet

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

async function logs(policy: 'off' | 'eager' | 'lazy'): Promise<Record<string, unknown>> {
  const env = stage.env({ ISTHMUS_POLICY: policy });
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM], { env });
  return JSON.parse(stdout) as Record<string, unknown>;
}

for (const policy of ['eager', 'lazy'] as const) {
  test(`events, errors, addresses, sessions of TLS and HTTP/2: ${policy}`, { skip: cannotMove() }, async () => {
    const [plain, led] = [await logs('off'), await logs(policy)];
    assert.ok(Object.keys(plain).length > 20);
    for (const name of DEVIATIONS) {
      assert.notDeepEqual(led[name], plain[name], name);
      delete led[name];
      delete plain[name];
    }
    assert.deepEqual(led, plain);
  });
}
