import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadsPreload, preloadOption } from './preload.ts';

test('a path with spaces and quotes is one option of NODE_OPTIONS', () => {
  assert.equal(preloadOption('file:///a/register.cjs'), '--require=/a/register.cjs');
  assert.equal(preloadOption('file:///a%20%22b%22/%C3%A9.cjs'), '--require="/a \\"b\\"/é.cjs"');
});

test('a program is known to load the preload by either option', () => {
  for (const url of ['file:///a/register.cjs', 'file:///a%20%22b%22/register.cjs']) {
    assert.ok(loadsPreload(`--no-warnings --import ${url}`, url));
    assert.ok(loadsPreload(`--no-warnings ${preloadOption(url)}`, url));
    assert.ok(!loadsPreload('--require=/b/register.cjs', url));
  }
});
