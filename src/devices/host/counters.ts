/** What a device counts, by place: new ones come last. */
export const DEVICE_COUNTER = {
  /** Looks of a program that is awake, and those that found something. */
  looks: 0,
  found: 1,
  /** Doorbells of peers that woke it. */
  wakeUps: 2,
  sleeps: 3,
  /** The CPU was given away, to a peer that runs on the same one. */
  yields: 4,
  /** Signals for which a peer was woken, and those that it sees by itself. */
  rung: 5,
  saved: 6,
} as const;

export function makeDeviceCounters(): Float64Array {
  return new Float64Array(Object.keys(DEVICE_COUNTER).length);
}
