/** The ways that a connection of a test can go, in a fabric of the test's own. */
import { type SocketPair, type SocketPairOptions, socketPair } from '../../src/testing/index.ts';
import './own-fabric.ts';
import { type MovablePair, movedPair, onePartition, SMALL_FOREVER, twoPartitions } from './pairs.ts';

const withinOne = onePartition(SMALL_FOREVER);

export type Pair = SocketPair & Partial<Pick<MovablePair, 'movers'>>;

export const WAYS: Readonly<Record<string, (options?: SocketPairOptions) => Promise<Pair>>> = {
  TCP: socketPair,
  loopback: movedPair('moved at the first byte', withinOne),
  'host, mapped': movedPair('moved at the first byte', twoPartitions('mapped', SMALL_FOREVER)),
  'host, store': movedPair('moved at the first byte', twoPartitions('store', SMALL_FOREVER)),
  'moving meanwhile': movedPair('moving meanwhile', withinOne),
};
