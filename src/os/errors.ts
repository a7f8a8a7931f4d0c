import { getSystemErrorName } from 'node:util';

/** A system call that failed, told the way Node.js tells it: `code` ('EAGAIN'), `errno` (negative), `syscall`. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = errnoName(errno);
    super(`${syscall} ${code}`);
    this.name = 'SystemError';
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
  }
}

/** The system cannot be called at all: wrong platform, no FFI, an FFI that does not do what is needed. */
export class OsUnavailableError extends Error {
  readonly code: 'ERR_ISTHMUS_PLATFORM' | 'ERR_ISTHMUS_KERNEL' | 'ERR_ISTHMUS_FFI' | 'ERR_ISTHMUS_POLL';

  constructor(code: OsUnavailableError['code'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'OsUnavailableError';
    this.code = code;
  }
}

export const EPERM = 1;
export const EINTR = 4;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EINVAL = 22;
export const EPIPE = 32;

/** 'EPERM' for 1; `E<number>` for a number that this Node.js does not know. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `E${errno}`;
  }
}

/** The `code` of any error that has one. */
export function errorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}
