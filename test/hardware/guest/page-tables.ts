/**
 * The page tables that the kernel wrote for us, read out of the guest's own memory by the decoder behind `dmalink tables`: exactly
 * what we mapped is in them, and each page leads to the physical page that our memory has.
 *
 * Needs /dev/mem without restrictions (the lab kernel's) and a VT-d unit.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { readUnitTables } from "../../../src/analysis/index.ts";
import { PAGE_SIZE, type PhysPage } from "../../../src/base/index.ts";
import { type LinuxDevice, type Sysfs, systemCalls } from "../../../src/hosts/linux/index.ts";
import { equal, expect } from "./report.ts";

/** Of the root table's address among a VT-d unit's registers (VT-d specification, 11.4.5). */
const ROOT_REGISTER = 0x20;

/** Tables where they lie: every page is there. */
class PhysicalPages {
  readonly pageCount = 0;
  readonly #file = openSync("/dev/mem", "r");
  readonly #pages = new Map<number, DataView>();

  has(): boolean {
    return true;
  }

  low(page: PhysPage, index: number): number {
    return this.#page(page).getInt32(index * 8, true);
  }

  high(page: PhysPage, index: number): number {
    return this.#page(page).getInt32(index * 8 + 4, true);
  }

  close(): void {
    closeSync(this.#file);
  }

  #page(page: PhysPage): DataView {
    let view = this.#pages.get(page);
    if (view === undefined) {
      const bytes = new Uint8Array(PAGE_SIZE);
      readSync(this.#file, bytes, 0, PAGE_SIZE, page * PAGE_SIZE);
      view = new DataView(bytes.buffer);
      this.#pages.set(page, view);
    }
    return view;
  }
}

/** Why they cannot be read; undefined if they can. */
export function whyNoPageTables(sysfs: Sysfs): string | undefined {
  if (registersOf(sysfs) === undefined) return "no VT-d unit";
  try {
    const memory = new PhysicalPages();
    memory.low(0x1000 as PhysPage, 0); // RAM, 16 MiB up
    memory.close();
    return undefined;
  } catch {
    return "this kernel does not let RAM be read through /dev/mem";
  }
}

/** What is mapped for `device` equals its tables, page by page. */
export function checkPageTables(sysfs: Sysfs, device: LinuxDevice): void {
  const sys = systemCalls();
  const registers = sys.open("/dev/mem", "read the IOMMU's registers");
  const at = sys.mmap(PAGE_SIZE, { fd: registers, offset: registersOf(sysfs)! }, "read the IOMMU's registers");
  const words = new Uint32Array(sys.view(at, PAGE_SIZE)); // registers are read by words: a DataView may go byte by byte
  const root = BigInt(words[ROOT_REGISTER / 4]!) + (BigInt(words[ROOT_REGISTER / 4 + 1]!) << 32n);
  sys.munmap(at, PAGE_SIZE);
  sys.close(registers);

  const memory = new PhysicalPages();
  const { requester, name } = device;
  const found = readUnitTables(memory, {
    root,
    isRegister: true,
    device: { bus: requester >> 8, function: requester & 0xff },
  }).devices.find(({ bdf, space }) => bdf === name && space !== undefined);
  expect(found?.space !== undefined, `no tables for ${name}`);
  const inTables: Record<string, number> = {};
  for (const { iova, pages, phys } of found.space.mappings)
    for (let i = 0; i < pages; i++) inTables[(iova + i) * PAGE_SIZE] = (phys + i) * PAGE_SIZE;
  memory.close();

  const frames = openSync("/proc/self/pagemap", "r");
  const entry = new BigUint64Array(1);
  const wanted: Record<string, number> = {};
  for (const { iova, address, length } of device.domain.mappings)
    for (let i = 0; i < length; i += PAGE_SIZE) {
      readSync(frames, new Uint8Array(entry.buffer), 0, 8, ((address + i) / PAGE_SIZE) * 8);
      wanted[iova + i] = Number(entry[0]! & 0x7f_ffff_ffff_ffffn) * PAGE_SIZE;
    }
  closeSync(frames);
  expect(Object.keys(wanted).length > 100, `only ${Object.keys(wanted).length} pages`);
  equal(inTables, wanted, "pages in the tables");
}

function registersOf(sysfs: Sysfs): number | undefined {
  const address = sysfs.read("/sys/class/iommu/dmar0/intel-iommu/address");
  return address === undefined ? undefined : Number.parseInt(address, 16);
}
