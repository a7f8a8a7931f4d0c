/** Wrong arguments are the caller's fault, and said to the caller. */
import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { accelerate, attach, info, restore } from 'isthmus';

for (const wrong of [undefined, null, {}, 'a socket']) {
  test(`${JSON.stringify(wrong)} is no socket`, async () => {
    const socket = wrong as unknown as Socket;
    const fault = { code: 'ERR_INVALID_ARG_TYPE', message: /^socket is a net\.Socket, not / };
    assert.throws(() => attach(socket, 'client'), fault);
    assert.throws(() => info(socket), fault);
    await assert.rejects(accelerate(socket), fault);
    await assert.rejects(restore(socket), fault);
  });
}

test('there are two roles', async () => {
  const role = 'peer' as 'client';
  const fault = { code: 'ERR_INVALID_ARG_VALUE', message: "role is 'client' or 'server', not 'peer'" };
  assert.throws(() => attach(new Socket(), role), fault);
  await assert.rejects(accelerate(new Socket(), { role }), fault);
});
