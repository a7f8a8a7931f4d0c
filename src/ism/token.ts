import { randomBytes } from 'node:crypto';

declare const brand: unique symbol;

/** DMB token: what a peer needs to write into a DMB. 64 bits, opaque; good for the one peer the DMB was registered for. */
export type Token = bigint & { readonly [brand]: 'Token' };

export function randomToken(): Token {
  return randomBytes(8).readBigUInt64BE() as Token;
}

const TOO_BIG = 1n << 64n;

export function parseToken(value: bigint): Token {
  if (value < 0n || value >= TOO_BIG) throw new RangeError('a token has 64 bits');
  return value as Token;
}
