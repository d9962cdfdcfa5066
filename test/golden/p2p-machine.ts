/**
 * The PCI tree of the machine that the recordings of the running kernel come from, and where the devices that a file names
 * stand in it.
 *
 * Two functions of one device below one root port, two devices below the two downstream ports of a switch below another,
 * and all that has bus number 0 beside them. The ports' access control registers can be written, but for egress control.
 * A device elsewhere has no known place: it is mapped for like any other, but its routes cannot be judged.
 */
import { PhysAddr } from "../../src/base/index.ts";
import { ACS, requesterId } from "../../src/layouts/pci/index.ts";
import type { P2pMapType } from "../../src/p2p/index.ts";
import type { HostBridge, PciBar, PciNode } from "../../src/platform/index.ts";
import { type Header, type Line, NotJudged } from "./judge.ts";

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
  /** Where it stands is known. */
  readonly isPlaced: boolean;
  acsControl = 0;
  readonly present = true;
  readonly externalFacing = false;

  constructor(
    name: string,
    kind: PciNode["kind"],
    parent: PciNode | undefined,
    hostBridge: HostBridge,
    isPlaced = true,
  ) {
    this.requester = requesterId(name);
    this.kind = kind;
    this.parent = parent;
    this.hostBridge = hostBridge;
    this.isPlaced = isPlaced;
  }

  writeAcs(value: number): void {
    this.acsControl = value & 0x7f & ~ACS.egressControl;
  }
}

export interface RecordedTree {
  /** By the number that the file gives them. */
  readonly devices: readonly (RecordedNode | undefined)[];
  /** BARs that the file describes, by device number. */
  readonly bars: ReadonlyMap<number, PciBar>;
}

/** What stands below what; everything else on bus 0 stands on the root bus by itself. */
const PLACES: Readonly<Record<string, readonly [kind: PciNode["kind"], parent?: string]>> = {
  "00:03.0": ["root-port"],
  "01:00.0": ["endpoint", "00:03.0"],
  "01:00.1": ["endpoint", "00:03.0"],
  "00:07.0": ["root-port"],
  "02:00.0": ["upstream-port", "00:07.0"],
  "03:00.0": ["downstream-port", "02:00.0"],
  "03:01.0": ["downstream-port", "02:00.0"],
  "04:00.0": ["endpoint", "03:00.0"],
  "05:00.0": ["endpoint", "03:01.0"],
};

/** Bus, device and function of a device in segment 0: the only one that this machine has. */
function placeOf(name: string): string {
  const short = name.replace(/^0000:/, "");
  if (Number.isNaN(requesterId(name)) || /^....:/.test(short)) throw new NotJudged(`a device ${JSON.stringify(name)}`);
  return short;
}

/** The tree of a file, from its header and lines. */
export function recordedTree(header: Header, lines: readonly Line[]): RecordedTree {
  const amd = String(header["machine"]).includes("AMD family 0x17");
  // Without a model the emulator gives an AMD processor of family 0xf, which routes nothing.
  const cpu = { vendor: "AMD", family: amd ? 0x17 : 0xf };
  const bridge: HostBridge = { segment: 0, vendorId: 0x8086, deviceId: 0x29c0, cpu };
  const nodes = new Map<string, RecordedNode>();
  const nodeAt = (place: string): RecordedNode => {
    const found = nodes.get(place);
    if (found) return found;
    const [kind, parent] = PLACES[place] ?? ["root-endpoint"];
    const isPlaced = place in PLACES || place.startsWith("00:");
    const node = new RecordedNode(place, kind, parent === undefined ? undefined : nodeAt(parent), bridge, isPlaced);
    nodes.set(place, node);
    return node;
  };
  const devices: (RecordedNode | undefined)[] = [];
  const bars = new Map<number, PciBar>();
  const started = new Set<number>();
  for (const line of lines) {
    const device = line["dev"] as number;
    if (line["op"] === "device") devices[device] = nodeAt(placeOf(line["name"] as string));
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
      if (line["write"] === undefined) devices[device]?.writeAcs(Number(line["control"]));
    }
  }
  return { devices, bars };
}
