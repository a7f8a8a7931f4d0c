import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSameProcess } from './client.ts';

test('processes that the fabric cannot see are not one process', () => {
  assert.ok(isSameProcess(7, 7));
  assert.ok(!isSameProcess(7, 8));
  assert.ok(!isSameProcess(0, 0));
});
