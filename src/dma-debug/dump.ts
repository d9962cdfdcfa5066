/** Live mappings as the kernel writes them: one line an entry, in the order of its hash. Specified by: debugfs `dma-api/dump` of Linux 7.2. */

import { kernelDirection } from "../base/index.ts";
import type { Live } from "./live.ts";
import type { LiveMapping } from "./records.ts";

const ERRORS: Readonly<Record<LiveMapping["error"], string>> = {
  none: "check not applicable",
  unchecked: "not checked",
  checked: "checked",
};

/** Lines of all devices. Two-step ranges have no line: the kernel has no entry for them. */
export function dumpOf(devices: Iterable<Live>, cacheLine: number): string[] {
  const drivers = new Map<LiveMapping, string>();
  for (const { mappings, driver } of devices) for (const each of mappings) drivers.set(each, driver ?? "pci");
  return [...drivers.keys()].sort(inDumpOrder).map((mapping) => {
    const { device, kind, phys, address, length, direction, attributes, error } = mapping;
    const hex = (value: number): string => value.toString(16);
    const wide = (value: number): string => `0x${hex(value).padStart(16, "0")}`;
    return [
      drivers.get(mapping),
      device.name,
      kind,
      `idx ${bucketOf(mapping)}`,
      `P=${wide(phys)}`,
      `D=${hex(address)}`,
      `L=${hex(length)}`,
      `cln=${wide(Math.floor(phys / cacheLine))}`,
      `DMA_${kernelDirection(direction)}`,
      `dma map error ${ERRORS[error]}`,
      `attrs=0x${hex(attributes)}`,
    ].join(" ");
  });
}

/** The bucket of Linux's hash that an address lies in: the order of its dump. */
const bucketOf = ({ address }: Pick<LiveMapping, "address">): number => Math.floor(address / 8192) % 16_384;

/** As Linux lists its entries: bucket by bucket, oldest first. */
export const inDumpOrder = (a: LiveMapping, b: LiveMapping): number => bucketOf(a) - bucketOf(b) || a.order - b.order;
