/** The ways that a connection of a test can go, in a fabric of the test's own. */
import { type SocketPair, type SocketPairOptions, socketPair } from '../../src/testing/index.ts';
import './own-fabric.ts';
import { type MovablePair, movedPair, oneLoop, twoPartitions } from './pairs.ts';

export type Pair = SocketPair & Partial<Pick<MovablePair, 'movers'>>;

export const WAYS: Readonly<Record<string, (options?: SocketPairOptions) => Promise<Pair>>> = {
  TCP: socketPair,
  loopback: movedPair('moved at the first byte', oneLoop),
  'host, mapped': movedPair('moved at the first byte', twoPartitions('mapped')),
  'host, store': movedPair('moved at the first byte', twoPartitions('store')),
  'moving meanwhile': movedPair('moving meanwhile', oneLoop),
};
