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
  /** PCI segment (domain) below it, 0 to 65535. */
  readonly segment: number;
  /** Vendor in its configuration space, 16 bits. */
  readonly vendorId: number;
  /** Device in its configuration space, 16 bits. */
  readonly deviceId: number;
  /** The processor: AMD from family 0x17 on routes between any of its root ports. */
  readonly cpu: {
    /** `AMD` is the one that matters; any other is taken as it is. */
    readonly vendor: string;
    /** As CPUID reports it, extended family added. */
    readonly family: number;
  };
}

/** A place in the PCI tree: what peer-to-peer routing needs of a device and of the bridges above it. */
export interface PciNode {
  /** What the device puts on the bus as its own name: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /**
   * Its type of port (PCI Express capability); `root-endpoint` is integrated into the root complex, with no port
   * above.
   */
  readonly kind: "root-port" | "upstream-port" | "downstream-port" | "endpoint" | "root-endpoint";
  /** The bridge above; undefined on the root bus. */
  readonly parent: PciNode | undefined;
  /** The host bridge that it is below. */
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
  /** 0 to 5; a 64-bit BAR goes by the lower of its two. */
  readonly index: number;
  /** Where the CPU sees it, bytes. */
  readonly phys: PhysAddr;
  /** Bytes of the BAR. */
  readonly length: number;
  /** What peers put on the bus for its first byte, bytes. */
  readonly busAddress: number;
}
