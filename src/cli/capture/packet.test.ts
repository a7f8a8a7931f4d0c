import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ipv4, ipv6, tcp } from './capture.test.helper.ts';
import { endpointText, isKnownLinkType, type Segment, segmentOf } from './packet.ts';

const PAYLOAD = Buffer.from('payload');
const SEGMENT = tcp({ seq: 5, payload: PAYLOAD });
const IPV4 = ipv4(SEGMENT);
const IPV6 = ipv6(SEGMENT);
const bytes = (hex: string, ...rest: Buffer[]) => Buffer.concat([Buffer.from(hex.replaceAll(' ', ''), 'hex'), ...rest]);
const MACS = '00'.repeat(12);

function segmentIn(linkType: number, packet: Buffer): Segment {
  const segment = segmentOf(linkType, packet);
  assert.ok(typeof segment !== 'string', String(segment));
  return segment;
}

function ends({ from, to }: Segment): string {
  return `${endpointText(from)} > ${endpointText(to)}`;
}

describe('link types', () => {
  const rows: readonly (readonly [string, number, Buffer])[] = [
    ['loopback of BSD, IPv4', 0, bytes('02000000', IPV4)],
    ['loopback of BSD, big-endian, IPv6', 0, bytes('0000001e', IPV6)],
    ['loopback of OpenBSD', 108, bytes('00000002', IPV4)],
    ['Ethernet, IPv4', 1, bytes(`${MACS} 0800`, IPV4)],
    ['Ethernet, IPv6', 1, bytes(`${MACS} 86dd`, IPV6)],
    ['Ethernet with a VLAN tag', 1, bytes(`${MACS} 8100 0005 0800`, IPV4)],
    ['Ethernet with two VLAN tags', 1, bytes(`${MACS} 88a8 0005 8100 0006 86dd`, IPV6)],
    ['Ethernet, padded', 1, bytes(`${MACS} 0800`, IPV4, Buffer.alloc(9))],
    ['raw IP, IPv4', 101, IPV4],
    ['raw IP, IPv6', 101, IPV6],
    ['raw IP of OpenBSD', 14, IPV4],
    ['raw IP, 12', 12, IPV6],
    ['IPv4', 228, IPV4],
    ['IPv6', 229, IPV6],
    ['Linux cooked', 113, bytes('0000 0304 0006 0000000000000000 0800', IPV4)],
    ['Linux cooked with a VLAN tag', 113, bytes('0000 0304 0006 0000000000000000 8100 0005 86dd', IPV6)],
    ['Linux cooked, version 2', 276, bytes('86dd 0000 00000001 0304 00 06 0000000000000000', IPV6)],
  ];
  for (const [name, linkType, packet] of rows) {
    test(name, () => {
      assert.ok(isKnownLinkType(linkType));
      const segment = segmentIn(linkType, packet);
      const isIpv4 = segment.from.length === 6;
      assert.equal(ends(segment), isIpv4 ? '10.0.0.2:40000 > 10.0.0.1:7777' : '[fd00::2]:40000 > [fd00::1]:7777');
      assert.equal(segment.payload.toString(), 'payload');
      assert.equal(segment.payloadLength, PAYLOAD.length);
      assert.equal(segment.seq, 5);
      for (let length = 0; length < packet.length; length++) {
        const cut = segmentOf(linkType, packet.subarray(0, length));
        if (typeof cut !== 'string') assert.equal(cut.payloadLength, PAYLOAD.length, 'what was on the wire');
      }
    });
  }

  test('others', () => {
    assert.equal(segmentOf(105, IPV4), 'link type');
    assert.ok(!isKnownLinkType(105));
  });
});

test('what is no TCP', () => {
  const udp = Buffer.from(IPV4);
  udp[9] = 17;
  assert.equal(segmentOf(101, udp), 'other');
  assert.equal(segmentOf(101, Buffer.from([0x10, 1, 2])), 'other');
  assert.equal(segmentOf(1, bytes(`${MACS} 0806`, Buffer.alloc(28))), 'other');
  assert.equal(segmentOf(101, ipv6(SEGMENT, Buffer.alloc(0), 17)), 'other');
  const short = Buffer.from(IPV4);
  short[32] = 0x40; // a header of 16 bytes
  assert.equal(segmentOf(101, short), 'other');
});

test('a fragment that is not the first is none', () => {
  assert.equal(segmentOf(101, ipv4(SEGMENT, undefined, 0x2001)), 'fragment');
  assert.equal(segmentIn(101, ipv4(SEGMENT, undefined, 0x2000)).payload.toString(), 'payload');
  assert.equal(segmentOf(101, ipv6(SEGMENT, bytes('0600 0009 00000001'), 44)), 'fragment');
});

test('extension headers of IPv6', () => {
  const hopByHop = bytes('2b00 0000 00000000');
  const routing = bytes('2c01', Buffer.alloc(14));
  const fragment = bytes('3300 0001 00000001');
  const authentication = bytes('3c04', Buffer.alloc(22));
  const destination = bytes('0600', Buffer.alloc(6));
  const all = Buffer.concat([hopByHop, routing, fragment, authentication, destination]);
  assert.equal(segmentIn(101, ipv6(SEGMENT, all, 0)).payload.toString(), 'payload');
});

test('lengths of zero, as they are before a packet is cut to size', () => {
  const [four, six] = [Buffer.from(IPV4), Buffer.from(IPV6)];
  four.writeUInt16BE(0, 2);
  six.writeUInt16BE(0, 4);
  for (const packet of [four, six]) assert.equal(segmentIn(101, packet).payload.toString(), 'payload');
});

test('flags', () => {
  const flagsOf = (flags: string) => {
    const { syn, ack, fin, rst } = segmentIn(101, ipv4(tcp({ flags })));
    return { syn, ack, fin, rst };
  };
  assert.deepEqual(flagsOf('SA'), { syn: true, ack: true, fin: false, rst: false });
  assert.deepEqual(flagsOf('FR'), { syn: false, ack: false, fin: true, rst: true });
});

describe('the SMC option', () => {
  const rows: readonly (readonly [string, string, string, boolean])[] = [
    ['as Linux sends it', 'S', '0204ffd7 0101fe06e2d4c3d9', true],
    ['longer', 'S', 'fe08e2d4c3d90000', true],
    ['of odd length', 'S', 'fe07e2d4c3d90001', false],
    ['with another magic', 'S', '0101fe06e2d4c3c4', false],
    ['behind the end', 'S', '0001fe06e2d4c3d9', false],
    ['without SYN', 'A', '0101fe06e2d4c3d9', false],
    ['cut', 'S', '0101fe06', false],
    ['behind an option without length', 'S', '0200fe06e2d4c3d9', false],
    ['behind one that is too long', 'S', '02fffe06e2d4c3d9', false],
  ];
  for (const [name, flags, options, expected] of rows) {
    test(name, () => assert.equal(segmentIn(101, ipv4(tcp({ flags, options: bytes(options) }))).smcOption, expected));
  }
});

test('any bytes are a segment or none', () => {
  const linkTypes = fc.constantFrom(0, 1, 12, 101, 108, 113, 228, 276, 9999);
  const start = fc.constantFrom(IPV4, IPV6, bytes(`${MACS} 8100 8100 8100`), Buffer.alloc(0));
  fc.assert(
    fc.property(linkTypes, start, fc.uint8Array({ maxLength: 80 }), fc.nat(80), (linkType, head, rest, at) => {
      const packet = Buffer.concat([head, rest]);
      packet.set(rest.subarray(0, Math.max(0, packet.length - at)), Math.min(at, packet.length));
      const segment = segmentOf(linkType, packet);
      if (typeof segment !== 'string') assert.ok(segment.payload.length <= segment.payloadLength);
    }),
    { numRuns: 2000 },
  );
});
