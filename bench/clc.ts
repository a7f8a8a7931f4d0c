/** What does a CLC message cost, decoded and encoded? In this process: no second one is needed. */
import { type Eid, parseChid, parseToken, randomGid } from '../src/ism/index.ts';
import { type ClcMessage, decodeClc, encodeClc } from '../src/smc/clc/index.ts';
import { makeAnswer, makeProposal } from '../src/smc/negotiation.ts';
import type { Finding, Inquiry } from './question.ts';
import { median } from './statistics.ts';

const BATCHES = 40;
const BATCH = 2000;

export const clc: Inquiry = {
  name: 'clc',
  title: 'CLC messages of a handshake',
  async answer() {
    const findings: Finding[] = [];
    for (const [name, message] of Object.entries(messages())) {
      const bytes = encodeClc(message);
      findings.push(time(`decode ${name} of ${bytes.length} bytes`, () => decodeClc(bytes)));
      findings.push(time(`encode ${name}`, () => encodeClc(message)));
    }
    return findings;
  },
};

function messages(): Record<string, ClcMessage> {
  const device = { gid: randomGid(), chid: parseChid(0xffff) };
  const ueids = ['ISTHMUS'] as Eid[];
  const proposal = makeProposal({ devices: [device], ueids, seid: null, layouts: ['isthmus'], prefixes: null });
  const [eid] = ueids as [Eid];
  const agreed = {
    device,
    eid,
    linkId: 0x100,
    firstContact: true,
    release: 1,
    featureMask: 1,
    layout: 'isthmus',
  } as const;
  const dmb = { token: parseToken(0x1122334455667788n), lengthBytes: 65536 };
  return { 'a Proposal': proposal, 'an Accept': makeAnswer('accept', agreed, dmb, 'host') };
}

function time(name: string, act: () => unknown): Finding {
  for (let i = 0; i < 5 * BATCH; i++) act();
  const batches = Array.from({ length: BATCHES }, () => {
    const began = performance.now();
    for (let i = 0; i < BATCH; i++) act();
    return ((performance.now() - began) * 1000) / BATCH;
  });
  const detail = `${BATCHES} batches of ${BATCH}, ${Math.min(...batches).toFixed(2)} to ${Math.max(...batches).toFixed(2)}`;
  return { name, value: median(batches), unit: 'µs', detail };
}
