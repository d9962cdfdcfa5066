/**
 * Pictures as PNG: an image of few colours, packed small.
 *
 * Specified by: the PNG specification (W3C), 11.2: header, palette, transparency, data; filter 0.
 */
import { crc32, deflateSync } from "node:zlib";

function chunk(name: string, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
  return bytes;
}

/**
 * An image of one colour, whose strength is the value of each point: 0 is clear, 255 full.
 *
 * @param values `width` x `height`, row by row from the top
 * @param colour red, green and blue, 0 to 255
 */
export function strengthPng(width: number, height: number, values: Uint8Array, colour: readonly number[]): Uint8Array {
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
  return Buffer.concat([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", header),
    chunk("PLTE", palette),
    chunk("tRNS", alpha),
    chunk("IDAT", deflateSync(lines, { level: 9 })),
    chunk("IEND", new Uint8Array(0)),
  ]);
}
