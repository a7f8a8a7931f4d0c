import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { canBeLocal } from './addresses.ts';

test('loopback addresses are of this host, in every spelling', () => {
  for (const address of ['127.0.0.1', '127.9.8.7', '::1', '::ffff:127.0.0.1'])
    assert.ok(canBeLocal(address, null), address);
});

test('addresses of its interfaces are of this host', () => {
  for (const { address } of Object.values(networkInterfaces()).flatMap((list) => list ?? [])) {
    assert.ok(canBeLocal(address, null), address);
    assert.ok(canBeLocal(address.includes(':') ? `${address}%eth0` : `::ffff:${address}`, null), address);
  }
});

test('others are not, nor is none', () => {
  // RFC 5737 and RFC 3849: addresses of documentation are nobody's.
  for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', undefined])
    assert.equal(canBeLocal(address, null), false, address);
});
