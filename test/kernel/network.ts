/**
 * The wire between this process and the kernel: Ethernet frames in UDP datagrams over loopback, as User-Mode Linux can send them
 * (drivers/um vector_transports.c, l2tpv3 with udp), and as much of ARP and IPv4 as a TCP needs. The kernel is 10.0.0.1, we
 * are 10.0.0.2.
 *
 * Sources: RFC 3931 4.1.2 (L2TPv3 over UDP), RFC 826 (ARP), RFC 791 (IPv4). Big-endian.
 *
 *     offset | size | field                                  offset | size | field
 *     datagram                                               IPv4
 *     0      | 4    | 0x00030000: data, version 3            0      | 1    | 0x45 when we send: no options
 *     4      | 4    | session                                2      | 2    | total length
 *     8      | -    | frame                                  8      | 1    | time to live
 *     frame                                                  9      | 1    | protocol
 *     0      | 6    | destination                            10     | 2    | checksum
 *     6      | 6    | source                                 12     | 4    | source
 *     12     | 2    | type                                   16     | 4    | destination
 *     14     | -    | payload                                ARP: 6 operation, 8 sender MAC, 14 sender IP, 18 target MAC, 24 IP
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';

export const KERNEL_ADDRESS = Buffer.from([10, 0, 0, 1]);
export const OUR_ADDRESS = Buffer.from([10, 0, 0, 2]);
const OUR_MAC = Buffer.from('525400000002', 'hex');

const SESSION = 1;
const L2TP_HEADER = Buffer.from([0, 3, 0, 0, 0, 0, 0, SESSION]);

const TYPE = 12;
const PAYLOAD = 14;
const TYPE_IPV4 = 0x0800;
const TYPE_ARP = 0x0806;

const ARP_ETHERNET_IPV4 = Buffer.from('0001080006040002', 'hex'); // the last two bytes: a reply
const ARP_OPERATION = 6;
const ARP_REQUEST = 1;
const ARP_SENDER_MAC = 8;
const ARP_TARGET_IP = 24;
const ARP_BYTES = 28;

const IP_HEADER_BYTES = 20;
const IP_LENGTH = 2;
const IP_TTL = 8;
const IP_PROTOCOL = 9;
const IP_CHECKSUM = 10;
const IP_SOURCE = 12;
const IP_DESTINATION = 16;
export const PROTOCOL_TCP = 6;

export class Network {
  readonly #socket: Socket;
  /** Known from its first frame on. */
  #kernel: { readonly remote: RemoteInfo; readonly mac: Buffer } | null = null;
  readonly #reachable: Promise<void>;
  /** Gets each TCP segment that is for us. */
  onSegment: (segment: Buffer) => void = () => {};
  /** All frames in both directions. */
  readonly frames: Buffer[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#reachable = new Promise((resolve) => {
      socket.on('message', (datagram, remote) => {
        this.#received(datagram.subarray(L2TP_HEADER.length), remote);
        if (this.#kernel) resolve();
      });
    });
  }

  static async open(): Promise<Network> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new Network(socket);
  }

  /** Argument of the kernel for its end; it takes a port of its own. */
  get kernelArgument(): string {
    const { port } = this.#socket.address();
    const sessions = `tx_session=${SESSION},rx_session=${SESSION}`;
    return `vec0:transport=l2tpv3,udp=1,src=127.0.0.1,srcport=0,dst=127.0.0.1,dstport=${port},${sessions}`;
  }

  /** Resolves when the kernel has asked for our address. */
  get reachable(): Promise<void> {
    return this.#reachable;
  }

  close(): void {
    this.#socket.close();
  }

  sendSegment(segment: Buffer): void {
    const header = Buffer.alloc(IP_HEADER_BYTES);
    header.writeUInt8(0x45, 0);
    header.writeUInt16BE(IP_HEADER_BYTES + segment.length, IP_LENGTH);
    header.writeUInt8(64, IP_TTL);
    header.writeUInt8(PROTOCOL_TCP, IP_PROTOCOL);
    header.set(OUR_ADDRESS, IP_SOURCE);
    header.set(KERNEL_ADDRESS, IP_DESTINATION);
    header.writeUInt16BE(checksum(header), IP_CHECKSUM);
    this.#send(TYPE_IPV4, Buffer.concat([header, segment]));
  }

  #send(type: number, payload: Buffer): void {
    if (this.#kernel === null) throw new Error('the kernel is not reachable yet');
    const { mac, remote } = this.#kernel;
    const frame = Buffer.concat([mac, OUR_MAC, Buffer.from([type >> 8, type & 0xff]), payload]);
    this.frames.push(frame);
    this.#socket.send([L2TP_HEADER, frame], remote.port, remote.address);
  }

  #received(frame: Buffer, remote: RemoteInfo): void {
    this.frames.push(frame);
    const payload = frame.subarray(PAYLOAD);
    const type = frame.readUInt16BE(TYPE);
    if (type === TYPE_ARP) this.#receivedArp(payload, remote);
    else if (type === TYPE_IPV4) this.#receivedIpv4(payload);
  }

  #receivedArp(request: Buffer, remote: RemoteInfo): void {
    if (request.readUInt16BE(ARP_OPERATION) !== ARP_REQUEST) return;
    if (!request.subarray(ARP_TARGET_IP, ARP_BYTES).equals(OUR_ADDRESS)) return;
    const sender = request.subarray(ARP_SENDER_MAC, ARP_SENDER_MAC + 10);
    this.#kernel = { remote, mac: sender.subarray(0, 6) };
    this.#send(TYPE_ARP, Buffer.concat([ARP_ETHERNET_IPV4, OUR_MAC, OUR_ADDRESS, sender]));
  }

  #receivedIpv4(packet: Buffer): void {
    if (packet.readUInt8(IP_PROTOCOL) !== PROTOCOL_TCP) return;
    const headerBytes = (packet.readUInt8(0) & 0xf) * 4;
    this.onSegment(packet.subarray(headerBytes, packet.readUInt16BE(IP_LENGTH)));
  }
}

/** The Internet checksum (RFC 1071) of bytes in which the place for it is zero. */
export function checksum(...parts: readonly Buffer[]): number {
  const bytes = Buffer.concat([...parts, Buffer.alloc(1)]);
  let sum = 0;
  for (let i = 0; i + 1 < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
