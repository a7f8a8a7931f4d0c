/** As in-band.test.ts, with the kernel's layout: from the first byte to the last, and no way back. */
import { socketScenarios } from '../../src/testing/index.ts';
import { compareInBand } from './in-band.ts';

const { closing, writing } = socketScenarios;
const NOWHERE_ELSE = 'what waits for room in the ring has nowhere else to go';

compareInBand('kernel', [
  ...[writing['both read only when their writes are done'], writing['both read only when they have finished']].map(
    (scenario) => ({ scenario, reason: `${NOWHERE_ELSE}: the two wait for each other, as they would with Linux` }),
  ),
  {
    scenario: closing['destroy after a write that the kernel takes whole: it arrives'],
    reason: `${NOWHERE_ELSE}, and is lost as what waits for room in the kernel is on TCP`,
  },
]);
