/**
 * The enterprise ids of a host: one table, kept by its fabric, with the rules and the errors that Linux has for them (smc_clc.c).
 * Pure: what becomes of a table, and how it stands in a message.
 */
import { constants } from 'node:os';
import { DEFAULT_UEID, type Eid, MAX_UEIDS, parseUeid } from '../ism/index.ts';
import type { MessageByName } from './protocol.ts';

export interface EidTable {
  /** At most MAX_UEIDS, in the order in which they are offered. */
  readonly ueids: readonly Eid[];
  /** The machine's own; null where it has none. */
  readonly seid: Eid | null;
  readonly seidEnabled: boolean;
}

/** What a host has that nobody has chosen anything for. */
export function defaultEids(seid: Eid | null): EidTable {
  return { ueids: [DEFAULT_UEID], seid, seidEnabled: seid !== null };
}

/** Throws TypeError for anything but a list of UEIDs that a table can hold. */
export function parseUeids(list: unknown): Eid[] {
  if (!Array.isArray(list) || list.length > MAX_UEIDS) throw new TypeError(`not a list of up to ${MAX_UEIDS} UEIDs`);
  const ueids = list.map((one) => parseUeid(typeof one === 'string' ? one : ''));
  if (new Set(ueids).size < ueids.length) throw new TypeError('a UEID stands there twice');
  return ueids;
}

export interface EidOutcome {
  readonly table: EidTable;
  /** An errno; 0 = done. EAGAIN: done, and the SEID was enabled with it. */
  readonly error: number;
  /** In words. */
  readonly text: string;
}

/** @param change a number of EID_CHANGES in protocol.ts, or any other. @param text the UEID, or anything else */
export function changeEids(table: EidTable, change: number, text: string): EidOutcome {
  const { ueids, seid } = table;
  const refused = (error: keyof typeof constants.errno, why: string): EidOutcome => ({
    table,
    error: constants.errno[error],
    text: why,
  });
  const done = (changes: Partial<EidTable>): EidOutcome => ({ table: { ...table, ...changes }, error: 0, text: '' });
  switch (change) {
    case 1: {
      const ueid = readUeid(text);
      if (ueid === null) return refused('EINVAL', NO_UEID);
      if (ueids.length >= MAX_UEIDS) return refused('ERANGE', `there are ${MAX_UEIDS} UEIDs, no more fit`);
      if (ueids.includes(ueid)) return refused('EEXIST', 'this UEID is there already');
      return done({ ueids: [...ueids, ueid] });
    }
    case 2: {
      const ueid = readUeid(text);
      if (ueid === null) return refused('EINVAL', NO_UEID);
      if (!ueids.includes(ueid)) return refused('ENOENT', 'there is no such UEID');
      const left = ueids.filter((one) => one !== ueid);
      if (left.length > 0 || seid === null) return done({ ueids: left });
      return {
        table: { ...table, ueids: left, seidEnabled: true },
        error: constants.errno.EAGAIN,
        text: 'the SEID is enabled, since the last UEID is deleted',
      };
    }
    case 3:
      return done({ ueids: [], seidEnabled: seid !== null });
    case 4:
    case 5:
      if (seid === null) return refused('EOPNOTSUPP', 'this machine has no SEID: only an s390 has one');
      if (change === 5 && ueids.length === 0) return refused('ENOENT', 'the SEID is needed while there is no UEID');
      return done({ seidEnabled: change === 4 });
    default:
      return refused('EINVAL', 'there is no such change');
  }
}

const NO_UEID = "a UEID is 1 to 32 of A-Z, 0-9, '.' and '-', begins with a letter or digit and has no '..'";

function readUeid(text: string): Eid | null {
  try {
    return parseUeid(text);
  } catch {
    return null;
  }
}

export function eidsMessage({ ueids, seid, seidEnabled }: EidTable): MessageByName<'EIDS'> {
  return { type: 'EIDS', ueids: ueids.join(' '), seid: seid ?? '', seidEnabled: seidEnabled ? 1 : 0 };
}

/** Throws TypeError when it is no table. */
export function tableOf({ ueids, seid, seidEnabled }: MessageByName<'EIDS'>): EidTable {
  return {
    ueids: parseUeids(ueids === '' ? [] : ueids.split(' ')),
    seid: seid === '' ? null : parseUeid(seid), // is of the same letters
    seidEnabled: seid !== '' && seidEnabled === 1,
  };
}
