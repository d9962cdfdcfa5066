/**
 * Requests of a virtio-iommu: what a driver writes into the request queue, and the status that the device writes back.
 *
 * Idea: an endpoint is attached to a domain; the device keeps the domain's mappings itself, and is told of each by a request.
 * A request is one run of bytes: head, fields, and a tail of four bytes of which the first is the status.
 * Promises: {@link decodeRequest} answers every run of bytes, and says what is wrong with one that is none.
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13.6.
 */
import type { IovaPage, PhysPage } from "../../base/index.ts";

/** Values of the head's first byte. */
export const REQUEST = { attach: 1, detach: 2, map: 3, unmap: 4 } as const;

/** What the device answers. */
export const STATUS = {
  ok: 0,
  /** The queue or the device is out of order. */
  ioError: 1,
  unsupported: 2,
  deviceError: 3,
  /** A field is wrong, or something is mapped there. */
  invalid: 4,
  /** An address lies outside what the device translates, or a mapping would be split. */
  range: 5,
  /** There is no such domain or endpoint. */
  noEntry: 6,
  fault: 7,
  noMemory: 8,
} as const;

/** Flags of a mapping. */
export const MAP_FLAG = {
  read: 1,
  write: 2,
  /** Of a device's registers; needs the feature. */
  mmio: 4,
} as const;

/** A request without its status. Pages are inclusive, as the addresses in the request are. */
export type VirtioIommuRequest =
  /** From now on requests of `endpoint` are translated by `domain`, which begins to exist. */
  | { readonly type: "attach"; readonly domain: number; readonly endpoint: number }
  /** From now on they are not; a domain without endpoints ends, with its mappings. */
  | { readonly type: "detach"; readonly domain: number; readonly endpoint: number }
  | {
      readonly type: "map";
      readonly domain: number;
      readonly first: IovaPage;
      readonly last: IovaPage;
      readonly phys: PhysPage;
      readonly flags: number;
    }
  /** Every mapping that lies in the range ends. */
  | { readonly type: "unmap"; readonly domain: number; readonly first: IovaPage; readonly last: IovaPage };

/** Bytes that are no request. */
export interface InvalidRequest {
  readonly type: "invalid";
  /** The status that they deserve. */
  readonly status: number;
  readonly reason: string;
}

const TAIL_BYTES = 4;
const BYTES: Readonly<Record<number, number>> = { 1: 24, 2: 24, 3: 40, 4: 32 };
const SIZES = { attach: 24, detach: 24, map: 40, unmap: 32 } as const;
/** Pages of 4 KiB in what a high word counts. */
const PAGES_PER_HIGH = 2 ** 20;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Bits 63:0 of an address in `page`, `inside` bytes from its start; by halves, because 64 bits are no exact number. */
function putAddress(view: DataView, at: number, page: number, inside: number): void {
  view.setUint32(at, (page % PAGES_PER_HIGH) * 4096 + inside, true);
  view.setUint32(at + 4, Math.floor(page / PAGES_PER_HIGH), true);
}

const pageAt = (view: DataView, at: number): number =>
  view.getUint32(at + 4, true) * PAGES_PER_HIGH + (view.getUint32(at, true) >>> 12);

const insideAt = (view: DataView, at: number): number => view.getUint32(at, true) & 0xfff;

/** What stands where the status will be: none. */
const UNANSWERED = 0xff;

/** The bytes of a request, with room for its status. */
export function encodeRequest(request: VirtioIommuRequest): Uint8Array {
  const bytes = new Uint8Array(SIZES[request.type]);
  putStatus(bytes, UNANSWERED);
  const view = viewOf(bytes);
  bytes[0] = REQUEST[request.type];
  view.setUint32(4, request.domain, true);
  switch (request.type) {
    case "attach":
    case "detach":
      view.setUint32(8, request.endpoint, true);
      return bytes;
    case "map":
      putAddress(view, 24, request.phys, 0);
      view.setUint32(32, request.flags, true);
      break;
  }
  putAddress(view, 8, request.first, 0);
  putAddress(view, 16, request.last, 4095);
  return bytes;
}

const invalid = (status: number, reason: string): InvalidRequest => ({ type: "invalid", status, reason });

/** The request that bytes are. */
export function decodeRequest(bytes: Uint8Array): VirtioIommuRequest | InvalidRequest {
  const size = BYTES[bytes[0] ?? 0];
  if (size === undefined) return invalid(STATUS.unsupported, `no request has the type ${bytes[0]}`);
  if (bytes.length !== size) return invalid(STATUS.invalid, `${bytes.length} bytes, where ${size} are needed`);
  const view = viewOf(bytes);
  const domain = view.getUint32(4, true);
  switch (bytes[0]) {
    case REQUEST.attach:
    case REQUEST.detach: {
      const type = bytes[0] === REQUEST.attach ? "attach" : "detach";
      if (view.getUint32(12, true) !== 0) return invalid(STATUS.invalid, "flags that are not known");
      return { type, domain, endpoint: view.getUint32(8, true) };
    }
    default: {
      const [first, last] = [pageAt(view, 8) as IovaPage, pageAt(view, 16) as IovaPage];
      if (insideAt(view, 8) !== 0 || insideAt(view, 16) !== 4095) return invalid(STATUS.range, "not of whole pages");
      if (last < first) return invalid(STATUS.invalid, "a range that ends before it begins");
      if (bytes[0] === REQUEST.unmap) return { type: "unmap", domain, first, last };
      if (insideAt(view, 24) !== 0) return invalid(STATUS.range, "memory that does not begin with a page");
      const phys = pageAt(view, 24) as PhysPage;
      return { type: "map", domain, first, last, phys, flags: view.getUint32(32, true) };
    }
  }
}

/** The status that the device wrote into a request. */
export const statusOf = (bytes: Uint8Array): number => bytes[bytes.length - TAIL_BYTES]!;

/** Writes a status into the tail of a request, which has room for one. */
export function putStatus(bytes: Uint8Array, status: number): void {
  bytes[bytes.length - TAIL_BYTES] = status;
}
