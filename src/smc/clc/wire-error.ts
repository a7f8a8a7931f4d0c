import { IsthmusError } from '../../ism/index.ts';

export type ClcType = 'proposal' | 'accept' | 'confirm' | 'decline';

/** The peer sent what is no CLC message. The stream is not to be trusted any more: no fallback to TCP. */
export class ClcWireError extends IsthmusError {
  /** `header` when it is not even known which message this was meant to be. */
  readonly messageType: ClcType | 'header';
  /** As in the layout tables. */
  readonly field: string;
  /** From the start of the message. */
  readonly offset: number;
  readonly expected: string | number;
  readonly got: string | number;

  constructor(
    messageType: ClcWireError['messageType'],
    field: string,
    offset: number,
    expected: string | number,
    got: string | number,
  ) {
    super('ERR_ISTHMUS_CLC', 'peer', `CLC ${messageType}: ${field} at ${offset}: expected ${expected}, got ${got}`);
    this.name = 'ClcWireError';
    this.messageType = messageType;
    this.field = field;
    this.offset = offset;
    this.expected = expected;
    this.got = got;
  }
}
