/** What one user may take of the fabric, and who that is. */

/** What the kernel shows for an id that is not mapped in our user namespace: it equals nobody's. */
export const OVERFLOW_UID = 65534;

/** Who has connected, as the kernel says. */
export interface Credentials {
  /** 0: of another pid namespace. */
  readonly pid: number;
  readonly uid: number;
  /** The socket it came by, when that was made for one domain, such as a container; else null. */
  readonly domain: string | null;
}

/**
 * Users are told apart by uid. A domain is one user, whatever its uids: a container may have as many as it likes, and who is mapped
 * to what in it says nothing out here. Null: nobody knows who it is.
 */
export function userOf({ uid, domain }: Credentials): string | null {
  if (domain !== null) return `domain ${domain}`;
  return uid === OVERFLOW_UID ? null : `uid ${uid}`;
}

export interface FabricLimits {
  readonly partitionsPerUser: number;
  /** To the fabric's socket, sustained, and at once; with those that never say what they want. */
  readonly connectionsPerSecond: number;
  readonly connectionBurst: number;
  readonly claimsPerPartition: number;
  readonly claimsPerUser: number;
  /** Sustained, and at once; with questions for introductions. */
  readonly announcementsPerSecond: number;
  readonly announcementBurst: number;
  /** Sockets of one user that are held, shown or asked for at a time. */
  readonly shownPerUser: number;
  /** Bytes that wait for one partition to take them off, with what each packet costs beside. */
  readonly waitingBytesPerPartition: number;
  /** Descriptors that wait for partitions of one user to take them off: who lets more come together is hung up on. */
  readonly waitingDescriptorsPerUser: number;
}

export const DEFAULT_LIMITS: FabricLimits = {
  partitionsPerUser: 1024,
  connectionsPerSecond: 200,
  connectionBurst: 2000,
  claimsPerPartition: 65536,
  claimsPerUser: 131_072,
  announcementsPerSecond: 10_000,
  announcementBurst: 20_000,
  shownPerUser: 128,
  waitingBytesPerPartition: 4 << 20,
  waitingDescriptorsPerUser: 16384,
};

/** Tokens that come back with time. */
export class Bucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  constructor(perSecond: number, burst: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = nowMs;
  }

  take(nowMs: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#at) * this.#perSecond) / 1000);
    this.#at = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
