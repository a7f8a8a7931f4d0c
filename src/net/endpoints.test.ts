import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEndpoints } from './endpoints.ts';

test('addresses, subnets and ports of both families', () => {
  const endpoints = parseEndpoints('127.0.0.1:7000, 10.0.0.0/8:5000-5010,[::1]:80,[fd00::/16]:*,*:9');
  for (const [address, port, expected] of [
    ['127.0.0.1', 7000, true],
    ['127.0.0.1', 7001, false],
    ['127.0.0.2', 7000, false],
    ['10.1.2.3', 5000, true],
    ['10.1.2.3', 5010, true],
    ['10.1.2.3', 5011, false],
    ['11.1.2.3', 5000, false],
    ['::1', 80, true],
    ['::2', 80, false],
    ['fd00::1', 1, true],
    ['fd01::1', 1, false],
    ['fd01::1', 9, true],
    ['1.2.3.4', 9, true],
    ['::ffff:127.0.0.1', 7000, true],
  ] as const) {
    assert.equal(endpoints.has(address, port), expected, `${address} ${port}`);
  }
  assert.equal(endpoints.has(undefined, undefined), false);
});

test('what is no pattern is said to be none', () => {
  for (const text of [
    '7000',
    ':7000',
    'localhost:7000',
    '127.0.0.1',
    '127.0.0.1:70000',
    '127.0.0.1:9-8',
    '::1:80',
    '10.0.0.0/33:1',
    '10.0.0.0/x:1',
  ]) {
    assert.throws(() => parseEndpoints(text), TypeError, text);
  }
});
