/**
 * The IDE extended capability of a port: what it can do, and where its register blocks lie.
 *
 * Idea: registers are 32-bit words; encode and decode are each other's inverse for everything that has a name here.
 * Specified by: PCI Express base specification 6.1, 7.9.26 (IDE extended capability).
 */

/** Extended capability id. */
export const IDE_CAPABILITY_ID = 0x30;

/** Byte offsets in the capability; register blocks follow. */
export const IDE_REGISTER = { header: 0x0, capability: 0x4, control: 0x8, blocks: 0xc } as const;

/** Bits of the control register. */
export const IDE_CONTROL = { flowThrough: 0x4 } as const;

/** Bytes of a link stream's block: control, then status. */
export const LINK_BLOCK_BYTES = 8;

/** What a port can do. */
export interface IdeCapability {
  /** Streams over one link. */
  readonly link: boolean;
  /** Streams between two ports, whatever is in between. */
  readonly selective: boolean;
  /** A switch passes selective streams of others. */
  readonly flowThrough: boolean;
  readonly aggregation: boolean;
  /** It takes keys by IDE_KM messages. */
  readonly keyManagement: boolean;
  /** Configuration requests go on selective streams, too. */
  readonly configurationRequests: boolean;
  /** Bit n: algorithm n; 0 is AES-GCM 256 with a MAC of 96 bits. */
  readonly algorithms: number;
  /** Traffic classes that link streams can have; 0 without link streams. */
  readonly linkClasses: number;
  /** Selective streams, 1 to 256; 0 without. */
  readonly selectiveStreams: number;
  /** A stream can be limited to requests with the T bit. */
  readonly teeLimited: boolean;
}

/** The capability register of a port that can do this. */
export const encodeIdeCapability = (port: IdeCapability): number =>
  ((port.link ? 0x1 : 0) |
    (port.selective ? 0x2 : 0) |
    (port.flowThrough ? 0x4 : 0) |
    (port.aggregation ? 0x10 : 0) |
    (port.keyManagement ? 0x40 : 0) |
    (port.configurationRequests ? 0x80 : 0) |
    ((port.algorithms & 0x1f) << 8) |
    (port.link ? (port.linkClasses - 1) << 13 : 0) |
    (port.selective ? (port.selectiveStreams - 1) << 16 : 0) |
    (port.teeLimited ? 0x100_0000 : 0)) >>>
  0;

/** What the capability register says. */
export function decodeIdeCapability(register: number): IdeCapability {
  const bit = (mask: number): boolean => (register & mask) !== 0;
  return {
    link: bit(0x1),
    selective: bit(0x2),
    flowThrough: bit(0x4),
    aggregation: bit(0x10),
    keyManagement: bit(0x40),
    configurationRequests: bit(0x80),
    algorithms: (register >>> 8) & 0x1f,
    linkClasses: bit(0x1) ? ((register >>> 13) & 7) + 1 : 0,
    selectiveStreams: bit(0x2) ? ((register >>> 16) & 0xff) + 1 : 0,
    teeLimited: bit(0x100_0000),
  };
}
