/** Page faults of GPUs, moves and everything a process does, in orders that a seed picks. */

import { describe, expect, test } from "vitest";
import { DmaError, KiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import { GPU_PAGES_FOUND, type GpuSpace, type ReservationPolicy } from "../../src/consumers/gpu/index.ts";
import { gpuPlace } from "../../src/layouts/gpu/index.ts";
import {
  type GpuWorkResult,
  newPageEntry,
  type PageEntry,
  type Steps,
  type UserAddr,
  WAITING,
} from "../../src/platform/index.ts";
import { many } from "../effort.ts";
import { interleave, type Piece } from "../models/interleaver.ts";
import { at, gpuRig, mapPages, type Rig, START } from "./rig.ts";

const PAGES = 48;

/** Whatever a GPU may use is what the process has there, with no more rights, and a page of a device is mapped for nobody on the bus. */
function checkTable(rig: Rig, space: GpuSpace): void {
  const { dma, memory: own, model } = rig.gpu;
  const entry: PageEntry = newPageEntry();
  for (let page = 0; page < PAGES; page++) {
    const found = space.table.entryAt(START / PAGE_SIZE + page);
    if (!found) continue;
    rig.memory.entryAt(at(page), entry);
    const to = space.table.lookup(START / PAGE_SIZE + page);
    const place = gpuPlace(to);
    const reached =
      place.at === "local"
        ? own.firstPage + place.index
        : dma.domain
          ? dma.domain.lookup(place.index as never)
          : place.index;
    const isThere = entry.kind === "present" || entry.kind === "device-private";
    if (!isThere || reached !== entry.page)
      throw new Error(
        `${model.name} reaches ${reached} for page ${page}, where the process has ${entry.kind} ${entry.page}`,
      );
    if (found.writable && !entry.writable) throw new Error(`${model.name} may write page ${page}, the process may not`);
  }
}

/** Work of the GPU as a piece; the driver's answers are another. */
function* service(rig: Rig, work: () => boolean): Steps<void> {
  while (work()) {
    const served = yield* rig.gpu.device.serveSteps();
    yield served > 0 ? "page faults are answered" : WAITING;
  }
}

const KNOWN = ["ERR_DMA_USER", "ERR_DMA_GPU", "ERR_DMA_HMM"];
const mayThrow = (error: unknown): boolean =>
  error instanceof DmaError && KNOWN.some((known) => error.code.startsWith(known));

function run(seed: number, policy: ReservationPolicy | "user pointer"): void {
  const random = Random.fromSeed(seed);
  const rig = gpuRig({ gpuBytes: 2 ** 21, frames: { settings: { quietSplits: random.chance(1, 2) } } });
  mapPages(rig, PAGES);
  const space = rig.gpu.device.openSpace(rig.memory);
  const shared =
    policy === "user pointer"
      ? undefined
      : space.shareMemory({
          chunks: [64 * KiB, PAGE_SIZE],
          policy,
          gpuMemory: rig.gpu.memory,
          wantsGpuMemory: () => random.chance(1, 3),
          allowMixed: random.chance(1, 2),
        });
  if (!shared) space.bindUserPointer({ start: START, length: PAGES * PAGE_SIZE });
  let working = 3;
  function* job(): Steps<GpuWorkResult | undefined> {
    try {
      const page = random.below(PAGES - 8);
      const length = (1 + random.below(8)) * PAGE_SIZE;
      const write = random.chance(2, 3);
      return yield* space.executeSteps(
        write
          ? { do: "fill", to: at(page), length, seed }
          : { do: "copy", from: at(page), to: at(random.below(PAGES - 8)), length },
      );
    } finally {
      working--;
    }
  }
  const { memory } = rig;
  const part = (): [UserAddr, number] => {
    const page = random.below(PAGES - 6);
    return [at(page), (1 + random.below(6)) * PAGE_SIZE];
  };
  function* change(): Steps<unknown> {
    const [address, length] = part();
    switch (random.below(shared ? 7 : 5)) {
      case 0:
        yield* memory.unmapSteps(address, length);
        return yield* memory.mapSteps({ address, length });
      case 1:
        return yield* memory.adviseSteps(address, length, "dontneed");
      case 2:
        yield* memory.protectSteps(address, length, "r");
        return yield* memory.protectSteps(address, length, "rw");
      case 3: {
        const child = yield* rig.process.forkSteps();
        yield* memory.touchSteps(address, true);
        return yield* child.exitSteps();
      }
      case 4:
        return yield* memory.touchSteps(address, random.chance(1, 2));
      case 5:
        return yield* rig.gpu.memory.moveIn(memory, address, address + length);
      default: {
        const [oldest] = rig.gpu.memory.allocations;
        return oldest && (yield* rig.gpu.memory.evictSteps(oldest));
      }
    }
  }
  const pieces: Piece[] = [
    ...["a", "b", "c"].map((name) => ({ name: `kernel ${name}`, steps: job(), mayThrow })),
    { name: "driver", steps: service(rig, () => working > 0) },
    ...[1, 2, 3, 4].map((n) => ({ name: `change ${n}`, steps: change(), mayThrow })),
  ];
  interleave(random, pieces, () => checkTable(rig, space));
  rig.gpu.device.close();
  rig.process.exit();
  const left = rig.leftovers();
  if (left.length > 0) throw new Error(`left: ${left.join("; ")}`);
}

describe("in any order", () => {
  test.each(["chunk", "area", "linux-7.2", "user pointer"] as const)(
    "a GPU has what its process has, and nothing is left: %s",
    (policy) => {
      for (let seed = 1; seed <= many(5); seed++) {
        try {
          run(seed, policy);
        } catch (error) {
          throw new Error(`seed ${seed} by ${policy}: ${(error as Error).stack}`);
        }
      }
    },
  );

  test("a change between the look and the commit begins the look again", () => {
    const rig = gpuRig();
    mapPages(rig, 16);
    const space = rig.gpu.device.openSpace(rig.memory);
    const shared = space.shareMemory({ chunks: [64 * KiB, PAGE_SIZE] });
    const steps = shared.faultSteps(START, true);
    let value: unknown;
    do value = steps.next().value;
    while (value !== GPU_PAGES_FOUND);
    rig.memory.advise(at(0), 16 * PAGE_SIZE, "dontneed");
    while (!steps.next().done);
    expect(space.counts.retries).toBe(1);
    checkTable(rig, space);
    rig.gpu.device.close();
    rig.process.exit();
    expect(rig.leftovers()).toEqual([]);
  });
});
