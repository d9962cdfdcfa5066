/**
 * Checks of what the device did: 27 access before sync, 28 access after unmap, 29 a bus address that is translated, 30
 * private memory.
 *
 * Idea: a machine that can see the accesses of its devices (the simulated one can) tells of each; an access is looked up in
 * what is mapped, then in what was. An access to what is mapped costs a look-up and says nothing.
 * Not for: accesses that were refused and never right: those are fault events of the IOMMU.
 */
import { DmaAddr, hex, IovaPage, type MisuseCode, PAGE_SIZE, PhysAddr } from "../base/index.ts";
import { hiddenFrom } from "../dma/index.ts";
import type { DeviceAccess } from "../platform/index.ts";
import type { DebugStore } from "./debug-store.ts";
import type { FindingSite } from "./finding.ts";
import type { Live } from "./live.ts";
import { pieceAt } from "./range-checks.ts";

export class AccessChecks {
  readonly #store: DebugStore;
  readonly #owner: Live;

  constructor(facility: DebugStore, owner: Live) {
    this.#store = facility;
    this.#owner = owner;
  }

  /** An access to what nobody has mapped. True if more is known of the address. */
  checkUnmapped(access: DeviceAccess): boolean {
    const { address, length } = access;
    if (this.#isPeer(access)) return true;
    const past = access.wentThrough ? this.#owner.history.latest(address, length) : undefined;
    if (past === undefined) return false;
    const how = this.#owner.domain
      ? "the access went through: the IOTLB was not told, or not yet"
      : "the access went through: no IOMMU stops it";
    this.#report(
      "access-after-unmap",
      access,
      `; ${past.length} bytes at ${hex(past.address)} were unmapped before, and ${how}`,
      [
        ["mapped at", past.mappedAt],
        ["unmapped at", past.unmappedAt],
      ],
    );
    return true;
  }

  /** True if the access is to something that is mapped: it is checked then. */
  checkMapped(access: DeviceAccess): boolean {
    const { mappings, ranges, domain } = this.#owner;
    const { address, length } = access;
    const granule = domain?.granule ?? 1;
    const start = Math.floor(address / granule) * granule;
    const span = Math.ceil((address + length) / granule) * granule - start;
    const mapping = mappings.overlapping(start, span)[0];
    if (mapping) {
      this.#checkPrivacy(access, [["mapped at", mapping.site]]);
      return true;
    }
    for (const range of ranges.overlapping(start, span)) {
      const offset = address - range.address;
      const piece = pieceAt(range, offset) ?? pieceAt(range, Math.max(0, start - range.address));
      if (piece === undefined) continue;
      if (!piece.synced)
        this.#report(
          "access-before-sync",
          access,
          `; offset ${offset} of the range at ${hex(range.address)} is linked and not synced yet, and the access ` +
            (access.wentThrough ? "went through by luck" : "was refused"),
          [
            ["reserved at", range.site],
            ["linked at", piece.site],
          ],
        );
      this.#checkPrivacy(access, [["linked at", piece.site]]);
      return true;
    }
    return false;
  }

  /** True if the address is that of a peer's memory on the bus. */
  #isPeer(access: DeviceAccess): boolean {
    const { device, domain, grants } = this.#owner;
    const { peers } = device.machine;
    const { address, wentThrough } = access;
    const provider = peers?.providers.find(
      ({ bar }) => address >= bar.busAddress && address < bar.busAddress + bar.length,
    );
    if (provider === undefined) return false;
    const type = peers!.mapType(provider, device.node);
    if (domain === undefined || (type === "bus-address" && wentThrough)) return true;
    this.#report(
      "bus-address-translated",
      access,
      `, the bus address of a peer's memory (BAR ${provider.bar.index}), and that way is ${type}: the request goes up to the ` +
        "IOMMU, which knows no such address; map the memory for this device",
      [["mapped at", grants.containing(address)[0]?.site]],
    );
    return true;
  }

  #checkPrivacy(access: DeviceAccess, sites: FindingSite[]): void {
    const { device, domain } = this.#owner;
    if (device.machine.encryption === undefined || device.tdi !== "none") return;
    const inside = access.address % PAGE_SIZE;
    const page = domain?.lookup(IovaPage.of(DmaAddr(access.address)));
    if (page !== undefined && page < 0) return;
    const phys = PhysAddr(page === undefined ? access.address - device.busOffset : page * PAGE_SIZE + inside);
    if (hiddenFrom(device, phys, access.length))
      this.#report("private-to-untrusted", access, ` and reaches ${hex(phys)}, which is private memory`, sites);
  }

  #report(code: MisuseCode, access: DeviceAccess, why: string, sites: readonly FindingSite[]): void {
    const { address, length, access: way } = access;
    const message = `the device ${way === "read" ? "reads" : "writes"} ${length} bytes at ${hex(address)}${why}`;
    const details = { address, length, access: way, wentThrough: String(access.wentThrough) };
    this.#store.report(code, this.#owner.device.name, message, details, sites);
  }
}
