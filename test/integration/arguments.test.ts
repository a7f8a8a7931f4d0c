/** Wrong arguments are the caller's fault, and said to the caller. */
import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { accelerate, attach, info, leases, reserve, restore } from 'isthmus';

for (const wrong of [undefined, null, {}, 'a socket']) {
  test(`${JSON.stringify(wrong)} is no socket`, async () => {
    const socket = wrong as unknown as Socket;
    const fault = { code: 'ERR_INVALID_ARG_TYPE', message: /^socket is a net\.Socket, not / };
    assert.throws(() => attach(socket, 'client'), fault);
    assert.throws(() => info(socket), fault);
    assert.throws(() => leases(socket), fault);
    assert.throws(() => reserve(socket, 1), fault);
    await assert.rejects(accelerate(socket), fault);
    await assert.rejects(restore(socket), fault);
  });
}

test('room is reserved for a number of bytes, and a loop of leases has one option', () => {
  for (const lengthBytes of [0, -1, 1.5, Number.NaN, 2 ** 30 + 1, '5' as unknown as number])
    assert.throws(() => reserve(new Socket(), lengthBytes), {
      code: 'ERR_INVALID_ARG_VALUE',
      message: /^lengthBytes is /,
    });
  const options = (one: object) => () => leases(new Socket(), one);
  assert.throws(options({ destroyOnReturn: 1 }), { code: 'ERR_INVALID_ARG_TYPE' });
  assert.throws(options({ destroy: true }), { code: 'ERR_INVALID_ARG_VALUE' });
});

test('there are two roles', async () => {
  const role = 'peer' as 'client';
  const fault = { code: 'ERR_INVALID_ARG_VALUE', message: "role is 'client' or 'server', not 'peer'" };
  assert.throws(() => attach(new Socket(), role), fault);
  await assert.rejects(accelerate(new Socket(), { role }), fault);
});
