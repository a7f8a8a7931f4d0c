/** A filter of system calls, as containers have them. */
import { existsSync } from 'node:fs';
import { cannotMove } from './commands.ts';

const OS = new URL('../../src/os/', import.meta.url).href;

/** Refuses an option of getsockopt to this thread and all that it starts, with errno $ERRNO: to be imported before a program. */
export const FILTER = `
  const { declare, check } = await import('${OS}ffi.js');
  const { scratch } = await import('${OS}scratch.js');
  const { address, bytes } = scratch();
  const [NUMBER, OPTION, GETSOCKOPT] = [0, 32, process.arch === 'x64' ? 55 : 209];
  const [LOAD, JUMP_IF_EQUAL, RETURN] = [0x20, 0x15, 0x06];
  const [SO_NETNS_COOKIE, REFUSE, ALLOW] = [71, 0x00050000 | Number(process.env.ERRNO), 0x7fff0000];
  const program = [
    [LOAD, 0, 0, NUMBER], [JUMP_IF_EQUAL, 0, 3, GETSOCKOPT],
    [LOAD, 0, 0, OPTION], [JUMP_IF_EQUAL, 0, 1, SO_NETNS_COOKIE],
    [RETURN, 0, 0, REFUSE], [RETURN, 0, 0, ALLOW],
  ];
  program.forEach(([code, yes, no, value], i) => {
    const at = 64 + 8 * i;
    bytes.writeUInt16LE(code, at); bytes.writeUInt8(yes, at + 2); bytes.writeUInt8(no, at + 3); bytes.writeUInt32LE(value, at + 4);
  });
  bytes.writeBigUInt64LE(BigInt(program.length), 0);
  bytes.writeBigUInt64LE(address + 64n, 8);
  const prctl = declare('prctl', 'i32', ['i32', 'usize', 'usize', 'usize', 'usize']);
  check('prctl', prctl(38, 1, 0, 0, 0)); // PR_SET_NO_NEW_PRIVS
  check('prctl', prctl(22, 2, address, 0, 0)); // PR_SET_SECCOMP
`;

/** For `skip`. */
export function cannotFilter(): string | false {
  return cannotMove() || (!existsSync('/proc/sys/kernel/seccomp') && 'this kernel has no seccomp');
}
