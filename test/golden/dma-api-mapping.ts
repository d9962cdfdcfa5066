/** Operations of the kind dma-api that map and unmap: one-shot, scatterlists, two steps, and their syncs. */
import { type Direction, type DmaAddr, type IovaPage, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import type { DmaAttributes, DmaVec, IovaRange, PhysVec } from "../../src/dma/index.ts";
import { addressOf, type Held, shorter } from "./dma-api-objects.ts";
import type { Operation, Replay } from "./dma-api-replay.ts";
import type { Line } from "./judge.ts";
import { ALL_ONES, hex } from "./kernel-events.ts";
import { attributesOf, directionOf, errnoOf, number } from "./words.ts";

/** All ones: what a failed map gives, as near as a number comes. */
const ERROR: number = 2 ** 64 - 2048;

export function mappingOperations(replay: Replay): Readonly<Record<string, Operation>> {
  const mapList: Operation = (line, held) => mapScatterlist(replay, line, held);
  return {
    map: (line, held) => map(replay, line, held),
    mapSingleOf: (line, held) => map(replay, line, held),
    unmap: (line, held) => unmap(replay, line, held),
    mappingError: (line, { mapping }) => {
      if (mapping) replay.misuse?.debug.errorChecked(mapping.address);
      replay.same("ret", line["ret"], mapping ? 0 : -12);
    },
    syncForCpu: (line, held) => sync(replay, line, held, "cpu"),
    syncForDevice: (line, held) => sync(replay, line, held, "device"),
    mapSg: mapList,
    mapSgTable: mapList,
    unmapSg: (line, { list }) => list && replay.dma.lists.unmap(shorter(list, line)),
    syncSgForCpu: (line, { list }) => list && replay.dma.lists.syncForCpu(shorter(list, line)),
    syncSgForDevice: (line, { list }) => list && replay.dma.lists.syncForDevice(shorter(list, line)),
    tryAlloc: (line, held) => tryAlloc(replay, line, held),
    link: (line, held) => link(replay, line, held),
    sync: (line, { range }) => {
      if (range)
        replay.same(
          "ret",
          line["ret"],
          errnoOf(() => range.sync(number(line["offset"]), number(line["size"]))),
        );
    },
    unlink: (line, { range }) => range?.unlink(number(line["offset"]), number(line["size"]), asLinked(line)),
    free: (_line, { range }) => range?.destroy(0),
    destroy: (line, { range }) => range?.destroy(number(line["mappedLen"]), asLinked(line)),
  };
}

function map(replay: Replay, line: Line, held: Held): void {
  const phys = line["phys"] ?? physOfUnknown(replay, line);
  if (phys === undefined) return;
  const size = number(line["size"]);
  const direction = directionOf(line);
  const attributes = attributesOf(line["attrs"], line["via"] === "map_resource");
  let address = ALL_ONES;
  const errno = errnoOf(() => {
    const at = replay.dma.mapPhys(PhysAddr(number(phys)), size, direction, attributes);
    address = hex(at);
    held.dev = replay.dev;
    held.mapping = { address: at, size, direction, attributes };
  });
  replay.same(`ret (${errno})`, line["ret"], address);
}

/**
 * Memory of which the file says only the kind: where it lies is seen from what was done with it. `undefined` if the kernel
 * refused it, or died of it; then nothing is mapped here either.
 */
function physOfUnknown(replay: Replay, line: Line): unknown {
  const { misuse, machine } = replay;
  const ret = line["ret"] as string | undefined;
  if (ret === undefined || ret === ALL_ONES) {
    if (line["crash"] !== undefined) misuse?.invalidMemory(replay.dma, number(line["size"]));
    machine.events.take();
    replay.skipState = true;
    return undefined;
  }
  const events = (line["events"] ?? []) as [string, string, string][];
  const bounced = events.find(([name]) => name === "bounced");
  const mapped = events.find(([name]) => name === "map");
  const phys = bounced ? number(bounced[1]) : mapped ? number(mapped[2]) + (number(ret) % 4096) : number(ret);
  misuse?.memoryIs(line["memory"], phys, number(line["size"]));
  return hex(phys);
}

/** An unmap of what could not be mapped is one of the value that a failed map gives. */
function unmap(replay: Replay, line: Line, held: Held): void {
  const failed = { address: ERROR, size: 0, direction: "bidirectional" as const, attributes: undefined };
  const isHeld = held.list !== undefined || held.memory !== undefined || held.range !== undefined;
  const mapping = held.mapping ?? (isHeld ? { ...failed, address: addressOf(held, 0) } : failed);
  const direction = line["dir"] === undefined ? mapping.direction : directionOf(line);
  const attributes =
    line["attrs"] === undefined && line["via"] === undefined
      ? mapping.attributes
      : attributesOf(line["attrs"], line["via"] === "unmap_resource");
  const size = line["size"] === undefined ? mapping.size : number(line["size"]);
  const looksUp = replay.dma.domain !== undefined && !attributes?.mmio && !attributes?.requireCoherent;
  if (mapping.address === ERROR && replay.misuse && looksUp) {
    replay.rule("error value");
    replay.machine.events.lookedUp(ERROR);
  }
  replay.dma.unmapPhys(mapping.address as DmaAddr, size, direction, attributes);
}

function sync(replay: Replay, line: Line, held: Held, to: "cpu" | "device"): void {
  const { mapping, memory } = held;
  if (Object.keys(held).length === 0) return; // the script goes on with an id of which nothing came
  const address = addressOf(held, number(line["offset"])) as DmaAddr;
  const direction = line["dir"] === undefined ? ((mapping ?? memory)?.direction ?? "bidirectional") : directionOf(line);
  if (to === "cpu") replay.dma.syncForCpu(address, number(line["size"]), direction);
  else replay.dma.syncForDevice(address, number(line["size"]), direction);
}

function mapScatterlist(replay: Replay, line: Line, held: Held): void {
  const list: PhysVec[] = (line["entries"] as [string, number][]).map(([phys, length]) => ({
    phys: PhysAddr(number(phys)),
    length,
  }));
  const table = line["op"] === "mapSgTable";
  let segments: readonly DmaVec[] = [];
  const [direction, attributes] = [directionOf(line), attributesOf(line["attrs"])];
  const errno = errnoOf(() => {
    ({ segments } = replay.dma.mapScatterlist(list, direction, attributes));
    held.dev = replay.dev;
    held.list = { list, segments, direction, attributes };
  });
  if (table && line["ret"] === -5 && errno !== 0) replay.rule("finer errno");
  else replay.same("ret", line["ret"], table ? errno : segments.length);
  if (table && errno === 0) replay.same("nents", line["nents"], segments.length);
  const found = segments.map(({ address, length, bus }) => [hex(address), length, ...(bus ? ["bus"] : [])]);
  replay.same("out", line["out"], found);
}

function tryAlloc(replay: Replay, line: Line, held: Held): void {
  const [length, physOffset] = [number(line["size"]), number(line["phys"])];
  if (length > Number.MAX_SAFE_INTEGER) {
    replay.rule("inexact length");
    replay.skipState = true;
    replay.same("ok", line["ok"], false);
    return;
  }
  let range: IovaRange | undefined;
  const errno = errnoOf(() => {
    range = replay.dma.tryReserveIova({ length, physOffset });
  });
  replay.same(`ok (${errno})`, line["ok"], range !== undefined);
  replay.same("sizeWord", line["sizeWord"], hex(range ? length : 0));
  if (!range) return;
  replay.same("addr", line["addr"], hex(range.address));
  held.dev = replay.dev;
  held.range = range;
}

function link(replay: Replay, line: Line, { range }: Held): void {
  if (!range) return;
  const errno = errnoOf(() =>
    range.link(
      number(line["offset"]),
      PhysAddr(number(line["phys"])),
      number(line["size"]),
      directionOf(line),
      attributesOf(line["attrs"]),
    ),
  );
  if (line["ret"] === 0 && errno === -22 && line["dir"] === "NONE") linkForNobody(replay, line, range);
  else compareLink(replay, line, errno);
  // Bit 63 of the kernel's size says that something has bounced.
  const word = BigInt(range.length) | (range.hasBounced ? 1n << 63n : 0n);
  replay.same("sizeWord", line["sizeWord"], `0x${word.toString(16)}`);
}

/** Linux's virtio-iommu maps for no direction, which dmalink never does: the domain is brought to where the kernel's is. */
function linkForNobody({ machine, dma, rule }: Replay, line: Line, { address }: IovaRange): void {
  rule("no direction");
  machine.events.take();
  const phys = number(line["phys"]);
  const pages = Math.ceil(((phys % 4096) + number(line["size"])) / 4096);
  const first = Math.floor((address + number(line["offset"])) / 4096) as IovaPage;
  dma.domain?.map(first, Math.floor(phys / 4096) as PhysPage, pages, 0);
}

function compareLink(replay: Replay, line: Line, errno: number): void {
  const misplaced = replay.machine.virtio !== undefined && line["ret"] === -22 && errno === -6;
  if (misplaced) replay.rule("one errno");
  else replay.same("ret", line["ret"], errno);
}

/** What `unlink` and `destroy` are told in Linux. */
function asLinked(line: Line): { direction: Direction; attributes?: DmaAttributes } {
  const attributes = attributesOf(line["attrs"]);
  return { direction: directionOf(line), ...(attributes && { attributes }) };
}
