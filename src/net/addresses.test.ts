import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { canBeLocal, destinations } from './addresses.ts';
import { parseAddressList } from './endpoints.ts';

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

test('addresses that are named may be of this host as well, and clients of TLS and HTTP/2 are led there', () => {
  const others = parseAddressList('192.0.2.0/24, 2001:db8::/32');
  for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1']) {
    assert.ok(canBeLocal(address, others), address);
    assert.deepEqual(destinations([{ host: address, port: 7 }], others), { addresses: [address], port: 7 });
  }
  assert.equal(canBeLocal('198.51.100.1', others), false);
  assert.equal(destinations([7, '198.51.100.1'], others), null);
  assert.deepEqual(destinations([7], null), { addresses: ['127.0.0.1', '::1'], port: 7 });
});
