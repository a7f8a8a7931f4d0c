/** As in-band.test.ts, with the kernel's layout: from the first byte to the last, and no way back. */
import { socketScenarios } from '../../src/testing/index.ts';
import { compareInBand } from './in-band.ts';

compareInBand('kernel', [
  {
    scenario: socketScenarios.writing['both read only when their writes are done'],
    reason:
      'what waits for room in the ring has nowhere else to go: the two wait for each other, as they would with Linux',
  },
  {
    scenario: socketScenarios.closing['destroy after a write that the kernel takes whole: it arrives'],
    reason:
      'what waits for room in the ring has nowhere else to go, and is lost as what waits for room in the kernel is on TCP',
  },
]);
