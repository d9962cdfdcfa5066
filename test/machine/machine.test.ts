/** The page's machine: its lessons, programs and buttons, without a browser. */
import { describe, expect, test } from "vitest";
import { programOf } from "../../src/apps/web/machine/lessons/lesson.ts";
import { LESSONS } from "../../src/apps/web/machine/lessons/lessons.ts";
import type { Standing } from "../../src/apps/web/machine/model/stage.ts";
import { begin, stepThrough } from "./run-program.ts";

const PAGE = 4096;
const said = (all: readonly Standing[]): string[] =>
  all.flatMap(({ picture }) => picture.events.filter(({ kind }) => kind === "said").map(({ text }) => text));
const lessonOf = (name: string, broken?: number): Promise<Standing[]> =>
  stepThrough(programOf(LESSONS.find((lesson) => lesson.name === name)!, broken));
const cellsOf = ({ picture }: Standing) => picture.spaces.flatMap(({ ranges }) => ranges.flatMap(({ cells }) => cells));

describe("every lesson", () => {
  test.each(LESSONS.map((lesson) => [lesson.name, lesson] as const))(
    "%s runs to its end without an error",
    async (_, lesson) => {
      const all = await stepThrough(lesson.program);
      expect(all.at(-1)!.trouble).toBeUndefined();
      expect(all.length).toBeGreaterThan(4);
    },
  );

  test.each(LESSONS.map((lesson) => [lesson.name, lesson] as const))(
    "%s goes another way when it is broken",
    async (_, lesson) => {
      const whole = await stepThrough(lesson.program);
      const told = (all: Standing[]) =>
        JSON.stringify(all.map(({ picture, trouble }) => [picture.events, picture.accesses, trouble]));
      for (const [i, { find }] of lesson.breakages.entries()) {
        expect(lesson.program.split(find), find).toHaveLength(2);
        expect(told(await stepThrough(programOf(lesson, i)))).not.toBe(told(whole));
      }
    },
  );
});

describe("a lesson", () => {
  test("of two steps counts one of each against four", async () => {
    expect(said(await lessonOf("two-steps"))).toEqual([
      "one shot:  4 reservations, 4 syncs, 4 invalidations",
      "two steps: 1 reservations, 1 syncs, 1 invalidations",
    ]);
  });

  test("of two steps shows pages linked and not yet synced, then mapped", async () => {
    const all = await lessonOf("two-steps");
    expect(cellsOf(all[5]!).map(({ state }) => state)).toEqual(["unsynced", "unsynced", "unsynced", "unsynced"]);
    expect(cellsOf(all[6]!).map(({ state }) => state)).toEqual(["mapped", "mapped", "mapped", "mapped"]);
    expect(all[8]!.picture.spaces[0]!.ranges).toEqual([]);
  });

  test("of lazy mode shows the stale entry, and what goes through it", async () => {
    const all = await lessonOf("lazy");
    expect(cellsOf(all[2]!)).toMatchObject([{ state: "stale", cached: true }]);
    expect(all[4]!.picture.accesses).toMatchObject([{ way: "iotlb" }]);
    expect(all[6]!.picture.accesses).toMatchObject([{ way: "refused", reason: "not-present" }]);
    expect(said(await lessonOf("lazy", 0))[0]).toBe("the late write was refused");
  });

  test("of bounce loses what the device wrote when the sync is forgotten", async () => {
    expect(said(await lessonOf("bounce"))[2]).toBe("the CPU sees: an echo!");
    expect(said(await lessonOf("bounce", 0))[2]).toBe("the CPU sees: up there");
  });

  test("of peers has the request turned around by the switch", async () => {
    expect((await lessonOf("peers"))[2]!.picture.accesses).toMatchObject([{ way: "switch" }]);
  });

  test("of migration loses a page when the IOTLB is not told that a dirty bit is clean", async () => {
    expect(said(await lessonOf("migration")).at(-1)).toBe("both sides are equal");
    expect(said(await lessonOf("migration", 0)).at(-1)).toBe("LOST: pages 4");
    expect(said(await lessonOf("migration", 1)).at(-1)).toBe("LOST: pages 5");
  });
});

const MACHINE = `import { DmaEngine, SimulatedHost } from "dmalink/sim";
const host = new SimulatedHost({ iommu: {} });
const [pci] = host.plug("0.0", new DmaEngine());
pci.setBusMaster(true);
host.openDevice(pci.name, { limits: { mask: 2 ** 32 - 1 } });
`;

describe("buttons", () => {
  test("reserve, link, sync, let the device write, unlink and destroy, and say each as a program would", async () => {
    const { stage, first } = await begin(MACHINE);
    const [device] = first.picture.handles.devices;
    const { picture, written } = stage.act({ do: "reserve", device: device!, pages: 2 });
    expect(written).toBe("range = dma.tryReserveIova({ length: 8192 })");
    const { id: range, page } = picture.handles.ranges[0]!;
    const address = page * PAGE;
    const states = () => cellsOf(stage.stand()).map(({ state }) => state);
    stage.act({ do: "link", range, index: 1, direction: "from-device" });
    expect(states()).toEqual(["empty", "unsynced"]);
    stage.act({ do: "sync", range });
    expect(states()).toEqual(["empty", "mapped"]);
    expect(stage.act({ do: "write", device: device!, address: address + PAGE }).picture.accesses).toMatchObject([
      { way: "walk" },
    ]);
    expect(stage.act({ do: "read", device: device!, address }).picture.accesses).toMatchObject([
      { way: "refused", reason: "not-present" },
    ]);
    stage.act({ do: "unlink", range, index: 1, lazy: true });
    expect(states()).toEqual(["empty", "stale"]);
    stage.act({ do: "flush", range });
    expect(states()).toEqual(["empty", "empty"]);
    expect(stage.act({ do: "destroy", range }).picture.handles.ranges).toEqual([]);
  });

  test("take on from where a lesson stands", async () => {
    const { stage } = await begin(LESSONS[0]!.program);
    for (let step = 0; step < 5; step++) await stage.next();
    const { ranges } = stage.stand().picture.handles;
    expect(stage.act({ do: "unlink", range: ranges[0]!.id, index: 2, lazy: false }).trouble).toBeUndefined();
    expect(cellsOf(stage.stand()).map(({ state }) => state)).toEqual(["unsynced", "unsynced", "empty", "unsynced"]);
  });

  test("answer with the library's words where it refuses, and change nothing", async () => {
    const { stage, first } = await begin(MACHINE);
    const { picture } = stage.act({ do: "reserve", device: first.picture.handles.devices[0]!, pages: 1 });
    const range = picture.handles.ranges[0]!.id;
    const { trouble } = stage.act({ do: "unlink", range, index: 0, lazy: false });
    expect(trouble).toMatchObject({ code: "ERR_DMA_UNLINK_HOLE", errno: "EINVAL" });
    expect(stage.stand().picture.handles.ranges).toHaveLength(1);
  });
});

describe("a program", () => {
  test("has its error shown at its line, with the code", async () => {
    const { first } = await begin(`${MACHINE}\nhost.openDevice("0000:09:00.0");`);
    expect(first.trouble).toMatchObject({ code: "ERR_DMA_SIM_DEVICE", errno: "ENODEV", line: 7 });
  });

  test("is told which names a module has not, at the import's line", async () => {
    const { first } = await begin(`\nimport { Nothing,\n  hex } from "dmalink";`);
    expect(first.trouble).toMatchObject({ message: "dmalink has no Nothing", line: 2 });
    expect((await begin(`import { readFileSync } from "node:fs";`)).first.trouble?.message).toMatch(
      /^there is no "node:fs" here/,
    );
  });

  test("that forgets to wait for a step is told so", async () => {
    const { stage } = await begin(`step("one"); await step("two");`);
    expect((await stage.next()).trouble?.message).toMatch(/write await step/);
  });

  test("without a machine has nothing to press buttons on", async () => {
    const { stage, first } = await begin(`console.log({ a: 1n }, "b");`);
    expect(first.picture.events).toMatchObject([{ kind: "said", text: '{"a":"1"} b' }]);
    expect(stage.act({ do: "wait", ms: 1 }).trouble?.message).toMatch(/no machine yet/);
  });

  test("stands in the same place when it is begun again", async () => {
    expect(await lessonOf("lazy")).toEqual(await lessonOf("lazy"));
  });
});
