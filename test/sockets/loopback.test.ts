/** Connections inside one event loop, over the loopback device, against plain ones. */
import { socketConformance } from '../../src/testing/index.ts';
import { DEVIATIONS } from './deviations.ts';
import { MOVES, type Move, movedPair } from './pairs.ts';

for (const move of Object.keys(MOVES) as Move[])
  socketConformance(`loopback, ${move}`, movedPair(move), { deviations: DEVIATIONS[move] });
