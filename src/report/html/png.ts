/**
 * Pictures as PNG: an image of few colours, packed small.
 *
 * Idea: the packing is asked for, not imported. Node's zlib is no module of a browser; CompressionStream is in both, but
 * answers later and takes no level, so a page could not be made in one go, nor be the same file everywhere. Whoever gives no
 * packing gets stored blocks: a right picture, only larger.
 * Specified by: the PNG specification (W3C), 11.2: header, palette, transparency, data; filter 0. zlib: RFC 1950 and 1951.
 */

/** Packs bytes as a zlib stream (RFC 1950), as `deflateSync` of node:zlib does. */
export type Deflate = (bytes: Uint8Array) => Uint8Array;

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/**
 * An image of one colour, whose strength is the value of each point: 0 is clear, 255 full.
 *
 * @param values `width` x `height`, row by row from the top
 * @param colour red, green and blue, 0 to 255
 */
export function strengthPng(
  width: number,
  height: number,
  values: Uint8Array,
  colour: readonly number[],
  deflate: Deflate = stored,
): Uint8Array {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 3, 0, 0, 0], 8); // 8 bits, palette, deflate, adaptive filters, not interlaced
  const palette = new Uint8Array(256 * 3);
  const alpha = new Uint8Array(256);
  for (let i = 0; i < 256; i++) {
    palette.set(colour, i * 3);
    alpha[i] = i;
  }
  const lines = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) lines.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  return joined([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("PLTE", palette),
    chunk("tRNS", alpha),
    chunk("IDAT", deflate(lines)),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

function chunk(name: string, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
  return bytes;
}

/** The most bytes of one stored block. */
const STORED_MOST = 0xffff;

/** `bytes` as a zlib stream that packs nothing. */
function stored(bytes: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.of(0x78, 0x01)];
  for (let at = 0; at === 0 || at < bytes.length; at += STORED_MOST) {
    const block = bytes.subarray(at, at + STORED_MOST);
    const [low, high] = [block.length & 0xff, block.length >>> 8];
    parts.push(Uint8Array.of(at + STORED_MOST >= bytes.length ? 1 : 0, low, high, low ^ 0xff, high ^ 0xff), block);
  }
  const sum = new Uint8Array(4);
  new DataView(sum.buffer).setUint32(0, adler32(bytes));
  return joined([...parts, sum]);
}

function adler32(bytes: Uint8Array): number {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

/** What a byte adds to the sum: the remainder by the reversed polynomial 0xedb88320. */
const CRC_OF_BYTE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb8_8320 : rest >>> 1;
  return rest >>> 0;
});

function crc32(bytes: Uint8Array): number {
  let sum = 0xffff_ffff;
  for (const byte of bytes) sum = (sum >>> 8) ^ CRC_OF_BYTE[(sum ^ byte) & 0xff]!;
  return (sum ^ 0xffff_ffff) >>> 0;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
