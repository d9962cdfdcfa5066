/**
 * The PCI tree, as the stack sees it: who sits below whom, and which ports redirect peer traffic.
 *
 * Idea: plain nodes with an upward pointer. Peer-to-peer routing needs no more than the path from each device to the
 * root, the access-control bits on it, and what the root complex is. The tree is alive: bits may change, devices may go.
 * Specified by: PCI Express base specification, 6.12 (access control services).
 */
import type { PhysAddr } from "../base/index.ts";
import type { PciDevice } from "./device.ts";

/** Bits of the ACS control register. */
export const ACS = {
  sourceValidation: 0x01,
  translationBlocking: 0x02,
  requestRedirect: 0x04,
  completionRedirect: 0x08,
  upstreamForwarding: 0x10,
  egressControl: 0x20,
  directTranslated: 0x40,
} as const;

/** Where PCI ends and the processor begins. */
export interface HostBridge {
  readonly segment: number;
  readonly vendorId: number;
  readonly deviceId: number;
  /** The processor: AMD from family 0x17 on routes between any of its root ports. */
  readonly cpu: { readonly vendor: string; readonly family: number };
}

export interface PciNode {
  /** What the device puts on the bus as its own name: {@link requesterId}. */
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

/** The address of a memory BAR on the bus, from configuration space. */
export function barBusAddress(device: Pick<PciDevice, "readConfig">, index: number): number {
  const low = device.readConfig(0x10 + 4 * index, 4);
  const high = (low & 6) === 4 ? device.readConfig(0x14 + 4 * index, 4) : 0;
  return high * 2 ** 32 + ((low & ~0xf) >>> 0);
}

/** `ssss:bb:dd.f` as a requester id: segment, 16 bits; bus, 8; device, 5; function, 3. */
export function requesterId(bdf: string): number {
  const match = /^(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(bdf);
  if (!match) return Number.NaN;
  const [, segment = "0", bus, device, fn] = match;
  return (
    Number.parseInt(segment, 16) * 65_536 +
    Number.parseInt(bus!, 16) * 256 +
    Number.parseInt(device!, 16) * 8 +
    Number(fn)
  );
}

/** A requester id as `ssss:bb:dd.f`. */
export function requesterName(requester: number): string {
  const part = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");
  const low = requester % 65_536;
  return `${part(Math.floor(requester / 65_536), 4)}:${part(low >>> 8, 2)}:${part((low >>> 3) & 31, 2)}.${low & 7}`;
}
