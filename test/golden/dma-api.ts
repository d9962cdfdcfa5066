/**
 * Judge of the kind dma-api: every call that a script made on the running kernel, made on dmalink, with every event, table
 * entry, address, error and byte compared.
 *
 * dmalink runs as Linux does (`linuxCompatible`, unchecked, an allocator that gives out twice what was freed twice), so that
 * its defects are reproduced; where reproducing one is unsafe or pointless, a named rule says so and the better answer is
 * accepted:
 * - `empty`: length 0 is refused.
 * - `handles free all`: memory of its own is freed by its handle, which knows its size.
 * - `error value`: what a failed map gives is not looked up when it is unmapped, where mistakes are checked for.
 * - `inexact length`: a reservation of more than 2^53 bytes is refused as bad input, not for lack of room.
 * - `one errno`: a link that is not of whole granules is refused alike behind every unit, where Linux's virtio-iommu says EINVAL.
 * - `no direction`: a link without one is refused, where Linux's virtio-iommu takes it.
 * - `finer errno`: a refused list says why, where the kernel says EIO.
 */
import type { IovaPage } from "../../src/base/index.ts";
import { machineOperations, peerOperations } from "./dma-api-machine.ts";
import { mappingOperations } from "./dma-api-mapping.ts";
import { memoryOperations } from "./dma-api-memory.ts";
import type { Held } from "./dma-api-objects.ts";
import { type Operation, Replay } from "./dma-api-replay.ts";
import { type Judge, judgeLines, known, type Line, NotJudged } from "./judge.ts";
import { ALL_ONES } from "./kernel-events.ts";
import { linesBefore } from "./misuse.ts";
import { directionOf, number } from "./words.ts";

export const judgeDmaApi: Judge = (header, lines) => {
  const replay = new Replay(header, lines);
  const operations: Readonly<Record<string, Operation>> = {
    ...machineOperations(replay),
    ...peerOperations(replay),
    ...mappingOperations(replay),
    ...memoryOperations(replay),
  };
  const before = linesBefore(header, lines);
  replay.misuse?.goesOn(before !== undefined);
  for (const [index, line] of (before ?? []).entries()) judgeLine(replay, operations, line, index);
  replay.differences.take();
  // What is not known is left out alone if it changed nothing; else nothing after it can be judged.
  const movesOn = (line: Line): boolean =>
    ["device", "domain", "set"].includes(line["op"] as string) || "events" in line || "entriesChanged" in line;
  return judgeLines(lines, movesOn, (line, index, tally) => {
    replay.rule = (name) => tally.rule(name);
    replay.skipState = false;
    try {
      judgeLine(replay, operations, line, index);
      return replay.differences.take();
    } catch (error) {
      replay.differences.take();
      replay.machine.events.take();
      throw error;
    }
  });
};

function judgeLine(replay: Replay, operations: Readonly<Record<string, Operation>>, line: Line, index: number): void {
  const held = replay.turnTo(line);
  const operation = known("the operation", operations, line["op"]);
  if (isEmpty(line)) refuseEmpty(replay, operation, line, held);
  else {
    if (replay.misuse && line["op"] !== "device") replay.dma.device.skipSync = false; // as that kernel is built
    operation(line, held, index);
  }
  replay.misuse?.compare(line, replay.differences);
  if (!replay.skipState) replay.state.after(line, replay.dev);
}

/**
 * dmalink refuses a call about nothing; what the kernel did instead shows in later lines, so it is made here in another way:
 * a granule that it mapped for nothing, a list without its empty entries where there is no IOMMU, the search for 4 GiB of
 * addresses that a list with an empty entry becomes where there is one.
 */
function refuseEmpty(replay: Replay, operation: Operation, line: Line, held: Held): void {
  const { dma, machine } = replay;
  const events = (line["events"] ?? []) as [string, ...unknown[]][];
  replay.rule("empty");
  const made: Held = {};
  operation(line, made, 0);
  replay.differences.take(); // the kernel answers something else
  machine.events.take();
  if (Object.keys(made).length > 0) replay.differences.add("dmalink made something of nothing");
  replay.skipState = true;
  if (line["op"] === "map" && events.some(([name, , , bytes]) => name === "map" && bytes !== "0x0")) {
    replay.skipState = false;
    operation({ ...line, size: "0x1" }, held, 0);
    return;
  }
  if (line["op"] === "map") mapOfNothing(replay, line, held, events);
  else if (isList(line)) {
    const entries = (line["entries"] as [string, number][]).filter(([, length]) => length > 0);
    const searches = events.filter(([name]) => name === "iovaAlloc");
    if (!dma.domain && entries.length > 0) operation({ ...line, entries }, held, 0);
    else if (searches.length > 0 && searches.every(([, , , page]) => page === "0x0"))
      for (const [, pages, limit] of searches)
        dma.domain?.reserve(Number(pages), Number(limit) as IovaPage, ANY_DEVICE);
    else
      throw new NotJudged(
        "a list with an empty entry was mapped: dmalink refuses it, and cannot go on as the kernel did",
      );
  }
  replay.differences.take();
  machine.events.take();
}

const ANY_DEVICE = { prefer32: false, busLimitPfn: 0 };

/** The kernel's allocator gives and takes "0 granules" as one; where the map did not fail, it keeps them, with an address. */
function mapOfNothing({ dma, dev }: Replay, line: Line, held: Held, events: readonly [string, ...unknown[]][]): void {
  for (const [name, first, second, third] of events) {
    if (name === "iovaAlloc" && third !== "0x0") {
      const page = dma.domain?.reserve(1, Number(second) as IovaPage, ANY_DEVICE);
      if (page !== Number(third))
        throw new NotJudged("an address for nothing is not the one that one granule would get");
    }
    if (name === "iovaFree") dma.domain?.release(Number(first) as IovaPage, 0, 1);
  }
  if (line["ret"] === ALL_ONES || line["ret"] === undefined || !dma.domain) return;
  held.dev = dev;
  held.mapping = { address: number(line["ret"]), size: 0, direction: directionOf(line), attributes: undefined };
}

const isList = (line: Line): boolean => line["op"] === "mapSg" || line["op"] === "mapSgTable";

/** Calls about nothing. */
const isEmpty = (line: Line): boolean =>
  (["map", "allocCoherent"].includes(line["op"] as string) && number(line["size"]) === 0) ||
  (isList(line) && (line["entries"] as [string, number][]).some(([, length]) => length === 0));

export const judges: Readonly<Record<string, Judge>> = { "dma-api": judgeDmaApi };
