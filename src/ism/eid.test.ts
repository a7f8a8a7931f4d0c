import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EID_BYTES, eidFromBytes, eidToBytes, parseUeid, seidOfCpuinfo } from './eid.ts';

test('a UEID is 1 to 32 of A-Z, 0-9, dot and minus, begins with a letter or digit, and has no two dots in a row', () => {
  for (const good of ['ISTHMUS', 'A', '0', 'MY.OWN', 'A-B.C-1', '9.-.', 'X'.repeat(32)]) {
    assert.equal(parseUeid(good), good);
    assert.equal(eidFromBytes(eidToBytes(parseUeid(good))), good);
  }
  const bad = ['', 'isthmus', 'My', '.A', '-A', 'A..B', 'A B', ' A', 'A ', 'A\n', 'A_B', 'Ä', 'A\0', 'X'.repeat(33)];
  for (const one of bad) assert.throws(() => parseUeid(one), TypeError, JSON.stringify(one));
});

/** As the kernel prints it on an s390, shortened. */
const S390 = `vendor_id       : IBM/S390
# processors    : 2
bogomips per cpu: 3033.00
max thread id   : 0
features        : esan3 zarch stfle msa ldisp eimm dfp edat etf3eh highgprs te vx sie
processor 0: version = 00,  identification = 1A2B3C,  machine = 3906
processor 1: version = 00,  identification = 2A2B3C,  machine = 3906

cpu number      : 0
version         : 00
identification  : 1A2B3C
machine         : 3906
`;

test('the SEID is made of the serial number and the type of the machine, not of the CPU', () => {
  const seid = seidOfCpuinfo(S390);
  assert.equal(seid, 'IBM-SYSZ-ISMSEID000000002B3C3906');
  assert.equal(seid?.length, EID_BYTES);
  const otherFirst = S390.replace('identification = 1A', 'identification = 7F');
  assert.equal(seidOfCpuinfo(otherFirst), seid);
});

test('other machines have no SEID', () => {
  const x86 = 'processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nstepping\t: 1\n';
  const arm = 'processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n';
  const garbled = S390.replaceAll('machine = 3906', 'machine = 39');
  for (const text of ['', x86, arm, garbled]) assert.equal(seidOfCpuinfo(text), null);
});
