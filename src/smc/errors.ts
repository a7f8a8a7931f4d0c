import { IsthmusError } from '../ism/errors.ts'; // the whole layer, with node:crypto, would weigh upon every program's start

/** The peer broke a rule of SMC-D or of the hand-over. Ends this connection, never more. */
export class PeerFault extends IsthmusError {
  constructor(message: string) {
    super('ERR_ISTHMUS_PROTOCOL', 'peer', message);
    this.name = 'PeerFault';
  }
}
