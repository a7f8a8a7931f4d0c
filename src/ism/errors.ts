/** Who is to blame: we (a bug or a wrong call), the peer (it broke a rule), or the system (memory, descriptors). */
export type Fault = 'local' | 'peer' | 'system';

/** Base of all errors of Isthmus. Match on `code`: it is stable, and two copies of the package may be loaded. */
export class IsthmusError extends Error {
  readonly code: `ERR_ISTHMUS_${string}`;
  readonly fault: Fault;

  constructor(code: IsthmusError['code'], fault: Fault, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'IsthmusError';
    this.code = code;
    this.fault = fault;
  }
}

/** What a device answers when an operation cannot be done. The comment names the errno of dibs. */
export type IsmErrorCode =
  /** EINVAL: no such token here, or it is not for the caller. */
  | 'ERR_ISTHMUS_TOKEN'
  /** EINVAL: offset and length leave the DMB, or a word is not aligned. */
  | 'ERR_ISTHMUS_RANGE'
  /** ENETUNREACH: no such peer on this device's fabric. */
  | 'ERR_ISTHMUS_PEER'
  /** ENOSPC: the device has no DMB left. */
  | 'ERR_ISTHMUS_NO_DMB'
  /** ENOMEM: no memory for a DMB. */
  | 'ERR_ISTHMUS_NO_MEMORY'
  /** EBUSY: a client that still has DMBs cannot be unregistered, nor a ninth one registered. */
  | 'ERR_ISTHMUS_BUSY'
  /** ENODEV: the device was closed. */
  | 'ERR_ISTHMUS_DEVICE_GONE'
  /** The peer broke the protocol of the device; the pair is ended. */
  | 'ERR_ISTHMUS_PROTOCOL';

export class IsmError extends IsthmusError {
  constructor(code: IsmErrorCode, fault: Fault, message: string, options?: { cause?: unknown }) {
    super(code, fault, message, options);
    this.name = 'IsmError';
  }
}
