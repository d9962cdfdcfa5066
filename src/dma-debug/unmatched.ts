/**
 * Findings about addresses that no live mapping explains: freed or synced though not mapped, still mapped when the device
 * is let go, or private.
 *
 * Idea: an address that fits nothing is looked up again in all that is and was there, so that the finding says whose it is.
 * Specified by: behaviour of Linux 7.2 DMA debugging, errors 1, 2, 16, 17 and 23.
 */
import { hex } from "../base/index.ts";
import type { DmaDevice } from "../dma/index.ts";
import type { CallSite } from "./call-site.ts";
import type { DebugStore } from "./debug-store.ts";
import { inDumpOrder } from "./dump.ts";
import type { FindingSite } from "./finding.ts";
import type { Live } from "./live.ts";
import type { Asked } from "./records.ts";

/** An unmap that no mapping fits. */
export function reportUnknownFree(facility: DebugStore, owner: Live, asked: Asked, site: CallSite | undefined): void {
  const { address, length } = asked;
  const { linuxCompatible, name } = owner.device;
  if (!(Number.isSafeInteger(address) && address >= 0)) {
    facility.report(
      "free-invalid",
      name,
      `unmaps ${length} bytes at ${address}, which no mapping can have: its map failed, or was never made`,
      { length },
      [["unmapped at", site]],
    );
    return;
  }
  const range = linuxCompatible ? undefined : owner.ranges.containing(address)[0];
  if (range) {
    facility.report(
      "wrong-function",
      name,
      `unmaps ${length} bytes at ${hex(address)} as ${asked.kind}; that is a two-step range of ${range.capacity} bytes ` +
        `at ${hex(range.address)}: unlink or destroy it`,
      { address, length, mapped: "two-step", unmapped: asked.kind },
      [
        ["reserved at", range.site],
        ["unmapped at", site],
      ],
    );
    return;
  }
  const around = owner.mappings.overlapping(address, length)[0];
  const past = owner.history.latest(address, length);
  let what = "nothing is or was mapped there";
  const sites: FindingSite[] = [];
  if (around) {
    what = `the mapping there has ${around.length} bytes from ${hex(around.address)} on`;
    sites.push(["mapped at", around.site]);
  } else if (past) {
    what = `the ${past.length} bytes mapped at ${hex(past.address)} were unmapped before`;
    sites.push(["mapped at", past.mappedAt], ["first unmapped at", past.unmappedAt]);
  }
  sites.push(["unmapped at", site]);
  const message = `unmaps ${length} bytes at ${hex(address)}; ${what}`;
  facility.report("free-unknown", name, message, { address, length }, sites);
}

/** A sync that no mapping contains. */
export function reportUnknownSync(
  facility: DebugStore,
  owner: Live,
  asked: Asked,
  to: "cpu" | "device",
  site: CallSite | undefined,
): void {
  const { address, length } = asked;
  const { linuxCompatible, name } = owner.device;
  const what = `syncs ${length} bytes at ${hex(address)} for the ${to === "cpu" ? "CPU" : "device"}`;
  const outside = linuxCompatible ? undefined : owner.mappings.overlapping(address, length)[0];
  if (outside) {
    facility.report(
      "sync-outside",
      name,
      `${what}; the mapping there has ${outside.length} bytes from ${hex(outside.address)} on`,
      { address, length, mappedAddress: outside.address, mapped: outside.length },
      [
        ["mapped at", outside.site],
        ["synced at", site],
      ],
    );
    return;
  }
  const past = owner.history.latest(address, length);
  facility.report(
    "sync-unknown",
    name,
    `${what}; ${past ? "they were unmapped before" : "nothing is or was mapped there"}`,
    { address, length },
    [
      ["mapped at", past?.mappedAt],
      ["unmapped at", past?.unmappedAt],
      ["synced at", site],
    ],
  );
}

/** What is live when the driver lets go: how many, and one of them: the oldest, or as Linux the last of its dump. */
export function reportLive(facility: DebugStore, owner: Live, site: CallSite | undefined): void {
  const { linuxCompatible, name } = owner.device;
  const live = [...owner.mappings].sort(inDumpOrder);
  const all = [...live, ...owner.ranges];
  const count = all.length;
  if (count === 0) return;
  const oldest = all.reduce((first, each) => (each.order < first.order ? each : first));
  const leak = linuxCompatible ? live.at(-1)! : oldest;
  const isRange = "capacity" in leak;
  const { address } = leak;
  const [length, kind] = isRange ? [leak.capacity, "two-step"] : [leak.length, leak.kind];
  const direction = isRange ? (leak.pieces[0]?.direction ?? "none linked") : leak.direction;
  facility.report(
    "unbound-with-live",
    name,
    `its driver lets go with ${count} live mapping${count === 1 ? "" : "s"}; one of them: ${length} bytes at ` +
      `${hex(address)}, ${direction}, ${kind}`,
    { count, address, length, direction, kind },
    [
      ["mapped at", leak.site],
      ["driver let go at", site],
    ],
  );
}

/** Private memory on its way to a device outside the guest's trust. */
export function reportPrivate(
  facility: DebugStore,
  { name }: DmaDevice,
  phys: number,
  length: number,
  what: string,
  site: CallSite | undefined,
): void {
  facility.report(
    "private-to-untrusted",
    name,
    `${what} ${length} bytes at ${hex(phys)}: they are private, and the device is outside the guest's trust; share them first`,
    { phys, length },
    [["mapped at", site]],
  );
}
