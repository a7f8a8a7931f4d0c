import { randomFillSync } from 'node:crypto';

declare const brand: unique symbol;

/** DMB token: what a peer needs to write into a DMB. 64 bits, opaque; good for the one peer the DMB was registered for. */
export type Token = bigint & { readonly [brand]: 'Token' };

/** Randomness in stock: a call for eight bytes costs as much as one for thousands. Each is used once and wiped. */
const stock = new BigUint64Array(512);
let left = 0;

export function randomToken(): Token {
  if (left === 0) {
    randomFillSync(stock);
    left = stock.length;
  }
  left--;
  const token = stock[left] as Token;
  stock[left] = 0n;
  return token;
}

const TOO_BIG = 1n << 64n;

export function parseToken(value: bigint): Token {
  if (value < 0n || value >= TOO_BIG) throw new RangeError('a token has 64 bits');
  return value as Token;
}
