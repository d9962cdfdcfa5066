/**
 * What forgetting one range costs the CPU: from the call to the moment that the unit has answered.
 *
 * The unit here answers at once and does nothing else: it writes the status word of the wait. So what is measured is the
 * stack's own part; a real unit takes a microsecond for its own.
 */
import { type Bench, HASH } from "../../../bench/bench.ts";
import { PromptVtdUnit } from "../../../test/models/prompt-vtd-unit.ts";
import { Counters, type IovaPage, type PhysPage, type Random } from "../../base/index.ts";
import { writeSecondStageRange, writeWait } from "../../layouts/invalidation/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { Arena, PageTable } from "../../pagetable/index.ts";
import { VtdUnit } from "./index.ts";
import { QUEUE_SLOTS } from "./invalidation-queue.ts";

const BASE = (2 ** 35) as PhysPage;
const CLOCK = { nowMs: () => 0, after: () => ({ cancel: () => {} }) };
const DOMAIN = 5;

/** 1024 ranges of 1 to 256 pages, below 4 GiB. */
const ranges = (random: Random): Int32Array => {
  const draws = random.fork("ranges");
  return Int32Array.from({ length: 2048 }, (_, i) => (i % 2 === 0 ? draws.below(0xfff00) : 1 + draws.below(256)));
};

const driven = (random: Random) => {
  const load = ranges(random);
  const memory = new Arena({ basePage: BASE });
  const registers = new PromptVtdUnit(memory);
  const unit = new VtdUnit({ registers, memory, clock: CLOCK });
  const layout = vtdSecondStage();
  const table = new PageTable({ layout, memory, counters: new Counters() });
  unit.attach(0x100, {
    domainId: DOMAIN,
    layout,
    memory,
    root: () => table.root,
    topLevel: () => table.topLevel,
  });
  return (units: number) => {
    registers.hash = HASH;
    for (let i = 0; i < units; i++) {
      const start = load[(i * 2) & 2047]! as IovaPage;
      unit.invalidateRange(DOMAIN, start, (start + load[(i * 2 + 1) & 2047]!) as IovaPage, true);
    }
    return { units, hash: registers.hash };
  };
};

/** The least that could be done: both descriptors are written in place, and nobody looks for errors. */
const bare = (random: Random) => {
  const load = ranges(random);
  const memory = new Arena({ basePage: BASE });
  const registers = new PromptVtdUnit(memory);
  memory.allocate(1);
  registers.writeQueueAddress(BigInt(BASE) << 12n);
  const ring = new Uint32Array(memory.words.buffer);
  const traits = { slotWords: 4, pageSelective: true, maxOrder: 18, drainReads: true, drainWrites: true } as const;
  let tail = 0;
  return (units: number) => {
    registers.hash = HASH;
    for (let i = 0; i < units; i++) {
      const start = load[(i * 2) & 2047]! as IovaPage;
      writeSecondStageRange(
        ring,
        tail * 4,
        traits,
        DOMAIN,
        start,
        (start + load[(i * 2 + 1) & 2047]!) as IovaPage,
        true,
      );
      const status = (BASE + 1) * 4096 + tail * 8;
      writeWait(ring, tail * 4 + 4, status as Parameters<typeof writeWait>[2], 2, true, false, false, false);
      tail = (tail + 2) % QUEUE_SLOTS;
      registers.writeQueueTail(tail * 16);
    }
    return { units, hash: registers.hash };
  };
};

export const benches: readonly Bench[] = [
  {
    name: "VT-d unit, a range forgotten",
    unit: "range",
    smoke: 2_000,
    full: 1_000_000,
    contenders: [
      { name: "driven", prepare: driven },
      { name: "two descriptors in place", prepare: bare },
    ],
  },
];
