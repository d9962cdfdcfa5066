/** Which accesses a region may be registered with. */
import { ACCESS, KNOWN_ACCESS, OPTIONAL_MASK } from "../../layouts/rdma/index.ts";
import { accessUnsupported, badAccess } from "./errors.ts";

/** What a device offers for regions. */
export interface RegionCapabilities {
  /** Access bits that the device takes. All that verbs know, but for flushes, unless said; wishes need not be in it. */
  readonly access?: number;
  /** One region over all of an address space. False unless said. */
  readonly implicitOnDemand?: boolean;
  /** A region may be given other memory under the same key. True unless said. */
  readonly newTranslation?: boolean;
}

/** All kinds of access but flushes. */
export const DEFAULT_ACCESS: number = KNOWN_ACCESS & ~(ACCESS.flushGlobal | ACCESS.flushPersistent);

/**
 * May a region be registered with these access bits?
 *
 * @throws DmaError ERR_DMA_RDMA_ACCESS (EINVAL) for bits that are unknown or do not go together, ERR_DMA_RDMA_UNSUPPORTED
 *   (EOPNOTSUPP) for those that the device does not have
 */
export function checkAccess(access: number, offered: number = DEFAULT_ACCESS): void {
  const remoteWrites = ACCESS.remoteWrite | ACCESS.remoteAtomic;
  if ((access & remoteWrites) !== 0 && (access & ACCESS.localWrite) === 0)
    throw badAccess(access, "who lets a peer write must let the device write (localWrite)");
  const unknown = access & ~KNOWN_ACCESS;
  if (unknown !== 0) throw badAccess(access, `the bits 0x${(unknown >>> 0).toString(16)} mean nothing`);
  const missing = access & ~(offered | OPTIONAL_MASK);
  if (missing !== 0) throw accessUnsupported(access, `the device does not offer the bits 0x${missing.toString(16)}`);
}
