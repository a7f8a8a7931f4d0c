/** What a Proposal offers in one version: typev1, typev2 of its header. */
export type Offer = 'R' | 'D' | 'both';

/** The index is the code of two bits: 0 SMC-R, 1 SMC-D, 2 nothing, 3 both. */
const OFFERS: readonly (Offer | null)[] = ['R', 'D', null, 'both'];

export function decodeOffer(code: number): Offer | null {
  return OFFERS[code] ?? null;
}

export function encodeOffer(offer: Offer | null): number {
  return OFFERS.indexOf(offer);
}

export function offerText(offer: Offer): string {
  return offer === 'both' ? 'SMC-R and SMC-D' : `SMC-${offer}`;
}
