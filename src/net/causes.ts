/** Reasons of errors, with the cause: a call and its errno, a path and its owner, a process. */
import { descriptorsFor, type FabricIdentity, FabricUnavailable, silenceOf } from '../fabric/client.ts';
import { DECLINES } from '../fabric/protocol.ts';
import { errorCode, OsUnavailableError } from '../os/index.ts';
import { MORE_DESCRIPTORS, REASONS, type Reason, withCause } from '../smc/reasons.ts';

/** What cannot be had of the system. */
export function reasonOfSystem(error: unknown): Reason {
  const { message } = error as Error;
  if (!(error instanceof OsUnavailableError)) return withCause(REASONS.SYSTEM, message, hintOf(errorCode(error)));
  switch (error.code) {
    case 'ERR_ISTHMUS_PLATFORM':
      return withCause(REASONS.PLATFORM, message);
    case 'ERR_ISTHMUS_KERNEL':
      return REASONS.KERNEL;
    case 'ERR_ISTHMUS_FFI':
      return withCause(
        REASONS.FFI,
        String((error.cause as Error | undefined)?.message ?? message).split('\n')[0] ?? '',
      );
    case 'ERR_ISTHMUS_POLL':
      return withCause(REASONS.SYSTEM, message);
    default:
      return error.code satisfies never;
  }
}

function hintOf(errno: string | undefined): string | undefined {
  switch (errno) {
    case 'EMFILE':
    case 'ENFILE':
      return MORE_DESCRIPTORS;
    case 'ENOMEM':
    case 'ENOSPC':
      return REASONS.MEM.hint;
    case 'EPERM':
    case 'EACCES':
    case 'ENOSYS':
      return 'a filter (seccomp) or security module of the system or the container refuses it: allow the program this call';
    default:
      return undefined;
  }
}

/** Why there is no fabric. */
export function reasonOfFabric(error: unknown): Reason {
  if (!(error instanceof FabricUnavailable)) return reasonOfSystem(error);
  const because = (reason: Reason) => withCause(reason, error.message, error.hint ?? undefined);
  switch (error.kind) {
    case 'none':
      return because(REASONS.NOFABRIC);
    case 'untrusted':
      return because(REASONS.UNTRUSTED);
    case 'full':
    case 'refused':
      return because(REASONS.FABRICBUSY);
    case 'foreign':
      return because(REASONS.PROTOCOL);
    case 'silent':
      return because(REASONS.FABRICSILENT);
    case 'nobody':
      return because(REASONS.UNKNOWNUSER);
    default:
      return error.kind satisfies never;
  }
}

export function reasonOfSilence(fabric: FabricIdentity): Reason {
  return withCause(REASONS.FABRICSILENT, ...silenceOf(fabric));
}

/**
 * Why the fabric does not match a claim. @param reason number of DECLINES in fabric/protocol.ts
 * @param fabric null: it is gone by now
 */
export function reasonOfDecline(reason: number, fabric: FabricIdentity | null): Reason {
  switch (reason) {
    case 1:
      return REASONS.SHARED;
    case 3:
      return REASONS.LINGER;
    case 4:
    case 5:
      return withCause(REASONS.FABRICBUSY, DECLINES[reason]);
    case 6:
      return withCause(REASONS.FABRICBUSY, DECLINES[reason], descriptorsFor(fabric?.fabricPid ?? 0));
    case 7:
      return REASONS.SELF;
    case 8:
      return REASONS.UNKNOWNUSER;
    case 9:
      return REASONS.UNPROVEN;
    default:
      return REASONS.MISMATCH;
  }
}
