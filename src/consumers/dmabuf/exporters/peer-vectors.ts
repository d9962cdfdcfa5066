/**
 * Parts of one device's memory as a buffer: what a driver with peer memory exports (RDMA device memory, a BAR of its own).
 *
 * Idea: offsets in a BAR become vectors with the BAR's provider, in any order, the same memory twice if asked. The driver moves nothing,
 * but may revoke all. Specified by: behaviour of Linux 7.2 dma_buf_phys_vec_to_sgt and its callers; judged by test/golden (dmabuf).
 */
import { type DmaError, PhysAddr } from "../../../base/index.ts";
import type { P2pProvider } from "../../../p2p/index.ts";
import type { Exporter } from "../exporter.ts";
import { lengthOf, type StorageVec } from "../storage.ts";

/** A part of a BAR. Bytes. */
export interface BarPart {
  /** First byte in the BAR. */
  readonly offset: number;
  /** How many. */
  readonly length: number;
}

/** What an exporter of peer memory is. */
export interface PeerVectorsOptions {
  /** For reports. */
  readonly name: string;
  /** The BAR. */
  readonly provider: P2pProvider;
  /** The buffer's bytes, in their order. */
  readonly parts: readonly BarPart[];
  /** Bytes; the sum of the parts unless said. */
  readonly lengthBytes?: number;
  /** The storage can be pinned; gives an error to refuse. Absent: it never moves, and pins are nothing. */
  readonly pin?: () => DmaError | undefined;
  /** Only importers that lose their mapping in bounded time. Default: any. */
  readonly teardown?: Exporter["teardown"];
}

/** The vectors of parts of a BAR. */
export const barVectors = (provider: P2pProvider, parts: readonly BarPart[]): StorageVec[] =>
  parts.map(({ offset, length }) => ({ phys: PhysAddr(provider.bar.phys + offset), length, provider }));

/** Exports parts of one provider's memory as they are. */
export function peerVectors(options: PeerVectorsOptions): Exporter {
  const { name, provider, parts, pin, teardown = "at-once" } = options;
  const vecs = barVectors(provider, parts);
  return {
    name,
    lengthBytes: options.lengthBytes ?? lengthOf(vecs),
    form: "vectors",
    teardown,
    vectors: () => vecs,
    ...(pin && {
      pin: () => {
        const error = pin();
        if (error) throw error;
      },
      unpin: () => {},
    }),
  };
}
