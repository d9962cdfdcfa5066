/**
 * Devices of the VFIO files as the judge makes them: those that the recorder had stand here; of any other the file's own answers
 * say what it is (regions, interrupts, features), and everything else about it is judged.
 */
import { type DeviceInterrupts, type DeviceRegion, VfioDevice, VfioGroup } from "../../src/consumers/vfio/index.ts";
import { VtdDevice } from "./iommufd-mock.ts";
import type { Line } from "./judge.ts";

/** What a device is. */
interface Described {
  readonly flags: number;
  readonly regions: readonly (DeviceRegion | undefined)[];
  readonly interrupts: readonly (DeviceInterrupts | undefined)[];
  readonly features: ReadonlyMap<number, number>;
  readonly resets: boolean;
}

const NO_REGION: DeviceRegion = { bytes: 0, flags: 0 };
const SET = 0x2_0000;
const GET = 0x1_0000;
/** Low power, three ways; DMA buffers. */
const FEATURES: ReadonlyMap<number, number> = new Map([
  [3, SET],
  [4, SET],
  [5, SET],
  [11, GET],
]);

/** A first BAR, six that are not there, 256 bytes of configuration, and no VGA. */
const regionsWith = (bar: DeviceRegion): (DeviceRegion | undefined)[] => [
  bar,
  ...Array.from({ length: 6 }, () => NO_REGION),
  { bytes: 0x100, flags: 3 },
  undefined,
];

const EDU: Described = {
  flags: 2,
  regions: regionsWith({ bytes: 0x10_0000, flags: 7 }),
  interrupts: [
    { count: 1, flags: 7 },
    { count: 1, flags: 9 },
    { count: 0, flags: 9 },
    undefined,
    { count: 1, flags: 9 },
  ],
  features: FEATURES,
  resets: false,
};

const NVME: Described = {
  flags: 3,
  regions: regionsWith({ bytes: 0x4000, flags: 15, capability: Uint8Array.of(3, 0, 1, 0, 0, 0, 0, 0) }),
  interrupts: [
    { count: 1, flags: 7 },
    { count: 0, flags: 9 },
    { count: 65, flags: 1 },
    { count: 1, flags: 9 },
    { count: 1, flags: 9 },
  ],
  features: FEATURES,
  resets: true,
};

const KNOWN: ReadonlyMap<string, Described> = new Map([
  ["edu", EDU],
  ["nvme", NVME],
]);

const num = (value: unknown): number => (value as number | undefined) ?? 0;

/** Capabilities of a region are headers of 8 bytes; what is behind them is the recorder's buffer. */
const capabilityOf = (caps: unknown): { capability?: Uint8Array } => {
  if (typeof caps !== "string" || caps.length < 16) return {};
  return { capability: Uint8Array.from(caps.slice(0, 16).match(/../g)!, (byte) => Number.parseInt(byte, 16)) };
};

/** The lines of a file that ask one device, by what its numbers were opened for. */
function linesOf(name: string, lines: readonly Line[]): Line[] {
  const devices = new Map<unknown, unknown>();
  return lines.filter((line) => {
    const opened = line["op"] === "cdevOpen" ? line["fd"] : line["op"] === "groupGetDevice" ? line["newFd"] : undefined;
    if (opened !== undefined) devices.set(opened, line["dev"]);
    return (
      String(line["op"]).match(/^(deviceInfo|regionInfo|irqInfo|deviceFeature|deviceCall)$/) &&
      devices.get(line["fd"]) === name
    );
  });
}

/** A device by what the file says of it. */
function describedBy(name: string, lines: readonly Line[]): Described {
  const told = linesOf(name, lines).filter((line) => line["ret"] === 0);
  const of = (op: string): Line[] => told.filter((line) => line["op"] === op);
  const info = of("deviceInfo")[0];
  if (!info) return EDU;
  const regions = new Array<DeviceRegion | undefined>(num(info["regions"])).fill(undefined);
  for (const line of of("regionInfo")) {
    const region = regions[num(line["index"])];
    const found = { bytes: Number(line["size"]), flags: num(line["flags"]), ...capabilityOf(line["caps"]) };
    if (!region?.capability) regions[num(line["index"])] = found;
  }
  const interrupts = new Array<DeviceInterrupts | undefined>(num(info["irqs"])).fill(undefined);
  for (const line of of("irqInfo"))
    interrupts[num(line["index"])] = { count: num(line["count"]), flags: num(line["flags"]) };
  const features = new Map<number, number>();
  for (const line of of("deviceFeature")) features.set(Number(line["flags"]) & 0xffff, GET | SET);
  const resets = of("deviceCall").some((line) => line["nr"] === 111);
  return { flags: num(info["flags"]), regions, interrupts, features, resets };
}

/** A device of a file, and what translates for it. */
export interface JudgedDevice {
  readonly hardware: VtdDevice;
  readonly device: VfioDevice;
}

/** Devices of VFIO, each in a group of its own. */
export class VfioWorld {
  entryLimit = 65_535;
  readonly #lines: readonly Line[];
  readonly #devices = new Map<string, JudgedDevice>();

  constructor(lines: readonly Line[]) {
    this.#lines = lines;
  }

  find(name: string): JudgedDevice {
    const before = this.#devices.get(name);
    if (before) return before;
    const { resets, ...described } = KNOWN.get(name) ?? describedBy(name, this.#lines);
    const hardware = new VtdDevice(name);
    const reset = resets ? { reset: () => {} } : {};
    const made = { hardware, device: new VfioDevice({ name, hardware, ...described, ...reset }, new VfioGroup()) };
    this.#devices.set(name, made);
    return made;
  }
}
