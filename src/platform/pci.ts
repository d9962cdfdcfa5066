/**
 * The PCI tree, as the stack sees it: who sits below whom, and which ports redirect peer traffic.
 *
 * Idea: plain nodes with an upward pointer. Peer-to-peer routing needs no more than the path from each device to the
 * root, the access-control bits on it, and what the root complex is. The tree is alive: bits may change, devices may go.
 * Specified by: PCI Express base specification, 6.12 (access control services).
 */
import type { PhysAddr } from "../base/index.ts";

/** Where PCI ends and the processor begins. */
export interface HostBridge {
  readonly segment: number;
  readonly vendorId: number;
  readonly deviceId: number;
  /** The processor: AMD from family 0x17 on routes between any of its root ports. */
  readonly cpu: { readonly vendor: string; readonly family: number };
}

/** A place in the PCI tree: what peer-to-peer routing needs of a device and of the bridges above it. */
export interface PciNode {
  /** What the device puts on the bus as its own name: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  readonly kind: "root-port" | "upstream-port" | "downstream-port" | "endpoint" | "root-endpoint";
  /** The bridge above; undefined on the root bus. */
  readonly parent: PciNode | undefined;
  readonly hostBridge: HostBridge;
  /** ACS control register as it stands now; 0 without the capability. */
  readonly acsControl: number;
  /** Removed devices keep their node, for those who still hold it. */
  readonly present: boolean;
  /** Firmware says that what is below may be plugged in by anybody. */
  readonly externalFacing: boolean;
}

/** A memory BAR: where the CPU sees it, and which address peers on the bus use for it. */
export interface PciBar {
  readonly index: number;
  readonly phys: PhysAddr;
  readonly length: number;
  readonly busAddress: number;
}
