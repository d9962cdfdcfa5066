/** How a device reaches a vector of a buffer's storage: asked once per vector, never per page. */
import type { Dma, DmaAttributes } from "../../dma/index.ts";
import { requesterName } from "../../layouts/pci/index.ts";
import type { P2pMapType } from "../../p2p/index.ts";
import { unreachable } from "./errors.ts";
import type { StorageVec } from "./storage.ts";

/** `memory`: RAM. `host-bridge`: a peer, as RAM without caches. `bus`: a peer, by its own address on the bus. */
export type RouteKind = "memory" | "host-bridge" | "bus";

const ROUTES: Readonly<Record<Exclude<P2pMapType, "not-supported">, RouteKind>> = {
  none: "memory",
  "through-host-bridge": "host-bridge",
  "bus-address": "bus",
};

/** @throws DmaError ERR_DMA_BUF_UNREACHABLE (EINVAL) */
export function routeOf(dma: Dma, importer: string, { provider }: StorageVec): RouteKind {
  if (provider === undefined) return "memory";
  const { machine, node } = dma.device;
  const type = machine.peers?.mapType(provider, node) ?? "not-supported";
  if (type === "not-supported") throw unreachable(importer, requesterName(provider.owner.requester));
  return ROUTES[type];
}

const PEER: DmaAttributes = { mmio: true };

/** A peer's memory is no RAM: it is mapped, and unmapped, with this attribute. */
export const attributesOf = (route: RouteKind): DmaAttributes | undefined =>
  route === "host-bridge" ? PEER : undefined;
