/**
 * How a request of one device finds the memory of another: the way through the tree, worked out anew.
 *
 * Idea: two devices meet at the lowest bridge above both. If no port on the way redirects peer traffic upstream (ACS),
 * that bridge turns the request around, and the device must use the address that the bus knows. Otherwise it goes up
 * through the root complex, which only some processors route back down; there an IOMMU translates as for RAM.
 * Not for: remembering answers (router.ts).
 * Specified by: behaviour of Linux 7.2 peer-to-peer DMA; PCI Express base specification, 6.12.
 */

import { ACS } from "../layouts/pci/index.ts";
import type { HostBridge, PciNode } from "../platform/index.ts";

/**
 * `none`: not the memory of a device. `bus-address`: the device uses the address on the bus, and no IOMMU sees it.
 * `through-host-bridge`: as RAM, without caches. `not-supported`: the request would not arrive.
 */
export type P2pMapType = "none" | "not-supported" | "bus-address" | "through-host-bridge";

/** A host bridge that routes between its root ports, and maybe to those of another one that is listed too. */
export interface AllowedBridge {
  /** Vendor of the host bridge, 16 bits. */
  readonly vendorId: number;
  /** Device of the host bridge, 16 bits. */
  readonly deviceId: number;
  /** Only if both devices are below the same host bridge. */
  readonly sameBridgeOnly?: boolean;
}

interface Route {
  readonly type: P2pMapType;
  /** Steps up from one and down to the other; how near they are, whatever the type. */
  readonly steps: number;
}

const REDIRECTS = ACS.requestRedirect | ACS.completionRedirect | ACS.egressControl;
const redirects = (node: PciNode): boolean => (node.acsControl & REDIRECTS) !== 0;

/** First AMD family whose processors route between any of their root ports. */
const AMD_ROUTES_FROM = 0x17;

/** The way from `client` to memory of `owner`, as the tree stands now. O(depth²), and trees are a few levels deep. */
export function routeBetween(owner: PciNode, client: PciNode, allowed: readonly AllowedBridge[]): Route {
  let redirected = false;
  let up = 0;
  for (let above: PciNode | undefined = owner; above; above = above.parent) {
    // The owner's side counts up to and with the common bridge, the client's side without it.
    if (redirects(above)) redirected = true;
    let down = 0;
    for (let below: PciNode | undefined = client; below; below = below.parent) {
      if (below === above) {
        for (let node = client; node !== above; node = node.parent!) if (redirects(node)) redirected = true;
        return { type: redirected ? throughHostBridge(owner, client, allowed) : "bus-address", steps: up + down };
      }
      down++;
    }
    up++;
  }
  return { type: throughHostBridge(owner, client, allowed), steps: up + depth(client) };
}

const depth = (node: PciNode): number => (node.parent ? depth(node.parent) + 1 : 1);

function throughHostBridge(owner: PciNode, client: PciNode, allowed: readonly AllowedBridge[]): P2pMapType {
  const [a, b] = [owner.hostBridge, client.hostBridge];
  if (a.cpu.vendor === "AMD" && a.cpu.family >= AMD_ROUTES_FROM) return "through-host-bridge";
  const same = a === b;
  return isAllowed(a, same, allowed) && (same || isAllowed(b, same, allowed)) ? "through-host-bridge" : "not-supported";
}

function isAllowed(bridge: HostBridge, same: boolean, allowed: readonly AllowedBridge[]): boolean {
  const listed = allowed.find((each) => each.vendorId === bridge.vendorId && each.deviceId === bridge.deviceId);
  return listed !== undefined && (same || listed.sameBridgeOnly !== true);
}
