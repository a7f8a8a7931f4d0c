import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HTTP2_FRAME, HTTP2_PREFACE_BYTES, Records, TLS_RECORD } from './records.ts';

const record = (length: number) =>
  Buffer.from([23, 3, 3, length >> 8, length & 255, ...Array(length).fill(length & 255)]);

test('records are told apart however they come', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(600)),
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1 }),
      (lengths, sizes) => {
        const all = lengths.map(record);
        const stream = Buffer.concat(all);
        const records = new Records(TLS_RECORD);
        const ends = new Set<number>();
        const parts: Buffer[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const chunk = stream.subarray(at, at + (sizes[i % sizes.length] ?? 1));
          for (const part of records.split(chunk)) {
            parts.push(part);
            at += part.length;
            ends.add(at);
          }
        }
        assert.ok(Buffer.concat(parts).equals(stream));
        let end = 0;
        for (const { length } of all) {
          end += length;
          assert.ok(ends.has(end));
        }
      },
    ),
  );
});

test('frames of HTTP/2 come after the preface', () => {
  const records = new Records(HTTP2_FRAME, HTTP2_PREFACE_BYTES);
  const ping = Buffer.concat([Buffer.from([0, 0, 8, 6, 0, 0, 0, 0, 0]), Buffer.alloc(8)]);
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  const preface = Buffer.alloc(HTTP2_PREFACE_BYTES, 'P');
  assert.deepEqual(records.split(Buffer.concat([preface, settings, ping, settings.subarray(0, 3)])), [
    preface,
    settings,
    ping,
    settings.subarray(0, 3),
  ]);
  assert.deepEqual(records.split(settings.subarray(3)), [settings.subarray(3)]);
});

test('an empty record ends with its header', () => {
  const records = new Records(TLS_RECORD);
  assert.equal(records.split(Buffer.concat([record(0), record(0)])).length, 2);
});
