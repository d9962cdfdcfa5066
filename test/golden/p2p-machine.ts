/**
 * The machine of the peer-to-peer recordings: its PCI tree, from the devices that a file names.
 *
 * Two functions of one device below one root port, two devices below the two downstream ports of a switch below another,
 * and two devices on the root bus. The ports' access control registers can be written, but for egress control.
 */
import { PhysAddr } from "../../src/base/index.ts";
import { ACS, requesterId } from "../../src/layouts/pci/index.ts";
import type { P2pMapType } from "../../src/p2p/index.ts";
import type { HostBridge, PciBar, PciNode } from "../../src/platform/index.ts";
import type { Header, Line } from "./judge.ts";

/** The kernel's numbers for the types; 0 is a state that has seen nothing. */
export const MAP_TYPES: Readonly<Record<P2pMapType, number>> = {
  none: 1,
  "not-supported": 2,
  "bus-address": 3,
  "through-host-bridge": 4,
};

/** A device whose access control register can be written, as far as the emulated ports have its bits. */
export class RecordedNode implements PciNode {
  readonly requester: number;
  readonly kind: PciNode["kind"];
  readonly parent: PciNode | undefined;
  readonly hostBridge: HostBridge;
  acsControl = 0;
  readonly present = true;
  readonly externalFacing = false;

  constructor(name: string, kind: PciNode["kind"], parent: PciNode | undefined, hostBridge: HostBridge) {
    this.requester = requesterId(name);
    this.kind = kind;
    this.parent = parent;
    this.hostBridge = hostBridge;
  }

  writeAcs(value: number): void {
    this.acsControl = value & 0x7f & ~ACS.egressControl;
  }
}

export interface RecordedMachine {
  /** By the number that the file gives them. */
  readonly devices: readonly RecordedNode[];
  /** BARs that the file describes, by device number. */
  readonly bars: ReadonlyMap<number, PciBar>;
}

/** The tree of a file of the `p2p` family, from its header and lines. */
export function recordedMachine(header: Header, lines: readonly Line[]): RecordedMachine {
  const amd = (header["machine"] as string).includes("AMD family 0x17");
  // Without a model the emulator gives an AMD processor of family 0xf, which routes nothing.
  const cpu = { vendor: "AMD", family: amd ? 0x17 : 0xf };
  const bridge: HostBridge = { segment: 0, vendorId: 0x8086, deviceId: 0x29c0, cpu };
  const below = new RecordedNode("00:03.0", "root-port", undefined, bridge);
  const aboveSwitch = new RecordedNode("00:07.0", "root-port", undefined, bridge);
  const upstream = new RecordedNode("02:00.0", "upstream-port", aboveSwitch, bridge);
  const places: Readonly<Record<string, () => RecordedNode>> = {
    "0000:00:03.0": () => below,
    "0000:00:07.0": () => aboveSwitch,
    "0000:01:00.0": () => new RecordedNode("01:00.0", "endpoint", below, bridge),
    "0000:01:00.1": () => new RecordedNode("01:00.1", "endpoint", below, bridge),
    "0000:04:00.0": () =>
      new RecordedNode("04:00.0", "endpoint", new RecordedNode("03:00.0", "downstream-port", upstream, bridge), bridge),
    "0000:05:00.0": () =>
      new RecordedNode("05:00.0", "endpoint", new RecordedNode("03:01.0", "downstream-port", upstream, bridge), bridge),
    "0000:00:04.0": () => new RecordedNode("00:04.0", "root-endpoint", undefined, bridge),
    "0000:00:06.0": () => new RecordedNode("00:06.0", "root-endpoint", undefined, bridge),
  };
  const devices: RecordedNode[] = [];
  const bars = new Map<number, PciBar>();
  const started = new Set<number>();
  for (const line of lines) {
    const device = line["dev"] as number;
    if (line["op"] === "device") devices[device] = places[line["name"] as string]!();
    if (line["op"] === "bar")
      bars.set(device, {
        index: line["bar"] as number,
        phys: PhysAddr(Number(line["start"])),
        length: Number(line["size"]),
        busAddress: Number(line["bus"]),
      });
    // The first look at a register, before anything was written, is how the machine booted.
    if (line["op"] === "acs" && !started.has(device)) {
      started.add(device);
      if (line["write"] === undefined) devices[device]!.writeAcs(Number(line["control"]));
    }
  }
  return { devices, bars };
}
