/**
 * A capture as a file of the classic pcap format, little-endian, without times.
 *
 * Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html
 *
 *     offset | size | field                     offset | size | field
 *     file                                      each frame
 *     0      | 4    | 0xa1b2c3d4                0      | 8    | time
 *     4      | 4    | version 2.4               8      | 4    | bytes here
 *     16     | 4    | longest frame             12     | 4    | bytes on the wire
 *     20     | 4    | 1: Ethernet               16     | -    | frame
 */
const MAGIC = 0xa1b2c3d4;
const VERSION_2_4 = 0x0004_0002;
const LONGEST = 0xffff;
const ETHERNET = 1;

export function pcap(frames: readonly Buffer[]): Buffer {
  const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  const header = words(MAGIC, VERSION_2_4, 0, 0, LONGEST, ETHERNET);
  return Buffer.concat([header, ...frames.flatMap((frame) => [words(0, 0, frame.length, frame.length), frame])]);
}
