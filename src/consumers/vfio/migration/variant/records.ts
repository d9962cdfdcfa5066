/**
 * Records of a function's data stream: a header of 16 bytes and what it announces.
 *
 * Idea: who does not know a tag may skip the record if it says so. Tag 0 is the next piece of the device's image, tag 1 says how
 * much stopping and copying would move.
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (stream records).
 */
/** Bytes of a header. */
export const RECORD_HEADER_BYTES = 16;
/** What follows a header. */
export const RECORD_TAG = {
  /** The next piece of the device's image. */
  IMAGE: 0,
  /** Bytes that stopping and copying would move. */
  STOP_COPY_SIZE: 1,
} as const;
const OPTIONAL = 1;

/** What a header says of the bytes behind it. */
export interface RecordHeader {
  /** Bytes that follow the header. */
  readonly bytes: number;
  /** Who does not know the tag skips the record. */
  readonly isOptional: boolean;
  /** What follows: one of {@link RECORD_TAG}, or one that is not known here. */
  readonly tag: number;
}

/** A header as its 16 bytes. */
export function encodeRecord({ bytes, isOptional, tag }: RecordHeader): Uint8Array {
  const header = new Uint8Array(RECORD_HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setBigUint64(0, BigInt(bytes), true);
  view.setUint32(8, isOptional ? OPTIONAL : 0, true);
  view.setUint32(12, tag, true);
  return header;
}

/** Any 16 bytes are a header; whether it makes sense is the reader's to say. */
export function decodeRecord(header: Uint8Array): RecordHeader {
  const view = new DataView(header.buffer, header.byteOffset, RECORD_HEADER_BYTES);
  return {
    bytes: Number(view.getBigUint64(0, true)),
    isOptional: (view.getUint32(8, true) & OPTIONAL) !== 0,
    tag: view.getUint32(12, true),
  };
}
