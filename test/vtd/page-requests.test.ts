/** Devices that ask for pages: groups, answers, queues that run over, and ends without a late answer. */
import { describe, expect, test } from "vitest";
import type { PageResponse, SimulatedPageRequest } from "../../src/hosts/simulated/units/vtd/index.ts";
import { READ, WRITE } from "../../src/layouts/pagetable/index.ts";
import type { PageRequestGroup } from "../../src/platform/index.ts";
import { DEVICE, frame, OTHER, page, vtdMachine } from "./machine.ts";

const OPTIONS = { ats: { queueDepth: 0, stu: 0 }, pageRequests: true };
const ENTRIES = 2048;

function machine(traits: object = {}) {
  const given = vtdMachine({ scalableMode: true, deviceTlb: true, pageRequests: true, pasidBits: 20, ...traits });
  const { unit, hardware } = given;
  hardware.addDeviceTlb(DEVICE);
  const domain = given.tables(1);
  unit.attach(DEVICE, domain.view, OPTIONS);
  unit.attach(DEVICE, domain.view, { pasid: 5 });
  const answers: PageResponse[] = [];
  hardware.onPageResponse = (answer) => answers.push(answer);
  const groups: PageRequestGroup[] = [];
  const queue = unit.pageRequests!;
  for (const pasid of [undefined, 5]) queue.setHandler(DEVICE, pasid, (group) => groups.push(group));
  const ask = (request: Partial<SimulatedPageRequest>, delayMs = 0) =>
    hardware.requestPage(
      { requester: DEVICE, pasid: 5, page: 7, group: 0, last: true, read: true, write: false, ...request },
      delayMs,
    );
  /** Code and group of the answers so far. */
  const answered = (): [number, number][] => answers.splice(0).map(({ code, group }) => [code, group]);
  return { ...given, domain, queue, answers, answered, groups, ask };
}

describe("a page request", () => {
  test("goes to the handler of its device and PASID, whose answer the device gets", () => {
    const { queue, ask, groups, answers } = machine();
    ask({ page: 0x1_2345_6789, group: 0x1a, write: true });
    ask({ page: 3, group: 0x1ff, pasid: -1, read: false, write: true });
    expect(queue.process()).toBe(2);
    expect(groups).toMatchObject([
      {
        requester: DEVICE,
        pasid: 5,
        index: 0x1a,
        requests: [{ page: 0x1_2345_6789, read: true, write: true, execute: false, privileged: false }],
      },
      { pasid: undefined, index: 0x1ff, requests: [{ page: 3, read: false, write: true }] },
    ]);
    expect(answers).toEqual([]);
    groups[1]!.respond("success");
    groups[0]!.respond("failure");
    expect(answers).toEqual([
      { requester: DEVICE, pasid: -1, group: 0x1ff, code: 0 },
      { requester: DEVICE, pasid: 5, group: 0x1a, code: 15 }, // as the bus numbers it
    ]);
  });

  test("waits for the last one of its group, among those of other groups", () => {
    const { queue, ask, groups } = machine();
    for (const [n, group, last] of [
      [1, 3, false],
      [2, 4, false],
      [3, 3, false],
      [4, 4, true],
      [5, 3, true],
    ] as const)
      ask({ page: n, group, last });
    queue.process();
    expect(groups.map(({ index, requests }) => [index, requests.map((request) => request.page)])).toEqual([
      [4, [2, 4]],
      [3, [1, 3, 5]],
    ]);
    expect(queue.partial).toBe(0);
  });

  test("is answered once, however often the handler answers", () => {
    const { queue, ask, groups, answered } = machine();
    ask({});
    queue.process();
    groups[0]!.respond("success");
    groups[0]!.respond("failure");
    expect([answered(), queue.answered]).toEqual([[[0, 0]], { success: 1, invalid: 0, failure: 0 }]);
  });

  test("makes a page reachable that was not: the device asks, the handler maps, the device goes on", () => {
    const { hardware, queue, domain, ask, reach, answered } = machine();
    queue.setHandler(DEVICE, 5, ({ requests, respond }) => {
      for (const request of requests) domain.table.map(request.page, frame(request.page + 100), 1, READ | WRITE);
      respond("success");
    });
    expect(reach([7], DEVICE, 5)).toEqual([-1]);
    ask({});
    queue.process();
    expect([answered(), reach([7], DEVICE, 5)]).toEqual([[[0, 0]], [107]]);
    expect(hardware.translate(DEVICE, page(7), "write", 5)).toBe(107);
  });

  test("that nobody handles is answered invalid at once", () => {
    const { queue, ask, answered } = machine();
    queue.setHandler(DEVICE, 5, undefined);
    ask({ last: false });
    ask({ group: 9 });
    ask({ pasid: 6, group: 10 });
    queue.process();
    expect(answered()).toEqual([
      [1, 9],
      [1, 10],
    ]);
  });

  test("whose handler fails is answered with failure, and the failure is not hidden", () => {
    const { queue, ask, answered } = machine();
    queue.setHandler(DEVICE, 5, () => {
      throw new Error("broken handler");
    });
    ask({ group: 1 });
    ask({ group: 2 });
    expect(() => queue.process()).toThrow("broken handler");
    expect(() => queue.process()).toThrow("broken handler");
    expect([queue.process(), answered()]).toEqual([
      0,
      [
        [15, 1],
        [15, 2],
      ],
    ]);
  });

  test.each([
    ["an address that is not canonical", { page: 2 ** 35 }],
    ["an address just below the upper half", { page: 2 ** 52 - 2 ** 35 - 1 }],
    ["privilege for a read", { privileged: true }],
    ["privilege for a write", { privileged: true, read: false, write: true }],
    ["execution and a read", { execute: true }],
  ])("that is malformed by %s is answered invalid if it is the last of its group", (_what, wrong) => {
    const { queue, ask, groups, answered } = machine();
    ask({ ...wrong, group: 1, last: false });
    ask({ ...wrong, group: 2 });
    queue.process();
    expect([groups, answered(), queue.malformed]).toEqual([[], [[1, 2]], 2]);
  });

  test("of the upper half is well-formed", () => {
    const { queue, ask, groups } = machine();
    ask({ page: 2 ** 52 - 2 ** 35 });
    queue.process();
    expect(groups).toHaveLength(1);
  });

  test("that asks for nothing is a stop marker, and dropped", () => {
    const { queue, ask, groups, answered } = machine();
    ask({ read: false });
    expect([queue.process(), groups, answered()]).toEqual([1, [], []]);
  });

  test("of a device that may not ask is answered by the unit, with a fault", () => {
    const { hardware, unit, tables, ask, answered, queue } = machine();
    unit.attach(OTHER, tables(2).view);
    ask({ requester: OTHER, group: 3 });
    expect([queue.process(), answered()]).toEqual([0, [[1, 3]]]);
    unit.readFaults();
    expect(unit.faults.drain()).toMatchObject([{ requester: OTHER, reason: 0x47 }]);
    expect(hardware.readPageRequestTail()).toBe(0);
  });
});

describe("the page-request queue", () => {
  test("goes around its end", () => {
    const { queue, ask, groups } = machine();
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 1000; i++) ask({ page: i, group: i % 512 });
      expect(queue.process()).toBe(1000);
    }
    expect(groups).toHaveLength(5000);
    expect(groups.every(({ requests }, i) => requests.length === 1 && requests[0]!.page === i % 1000)).toBe(true);
  });

  test("that runs over loses requests: groups in part are dropped, and the device is told to try again", () => {
    const { queue, ask, groups, answered, unit } = machine();
    ask({ group: 500, last: false });
    for (let i = 1; i < ENTRIES - 1; i++) ask({ group: i % 400 });
    ask({ group: 501, last: false }); // there is no room for the last entry: full and empty would look the same
    expect(answered()).toEqual([]);
    ask({ group: 500 });
    ask({ group: 501, last: false });
    expect(answered()).toEqual([[0, 500]]);
    expect(queue.process()).toBe(ENTRIES - 1);
    expect([groups.length, queue.partial, queue.overflows]).toEqual([ENTRIES - 2, 0, 1]);
    unit.readFaults(); // the same news in the fault status register
    expect(unit.faults.drain()).toEqual([]);
    ask({ group: 500 });
    expect([queue.process(), groups.at(-1)!.index]).toEqual([1, 500]);
  });

  test("is drained when a PASID goes: what is under way is answered, and nothing is answered late", () => {
    const { unit, queue, ask, groups, answered, clock } = machine();
    ask({ group: 1 }, 5); // still between the device and the queue
    ask({ group: 2 });
    ask({ group: 3, last: false });
    ask({ group: 4, pasid: -1 });
    queue.process();
    expect(groups.map(({ index }) => index)).toEqual([2, 4]);
    unit.detachPasid(DEVICE, 5);
    expect(groups.map(({ index }) => index)).toEqual([2, 4]); // it is too late for the handler
    expect(answered()).toEqual([
      [1, 1],
      [1, 2],
    ]);
    expect(queue.partial).toBe(0);
    for (const group of groups) group.respond("success");
    expect(answered()).toEqual([[0, 4]]); // that of the other PASID alone
    clock.advance(10);
    expect(queue.process()).toBe(0);
  });

  test("is drained by a fence, the invalidations and a wait that drains, as Linux sends them", () => {
    const submissions: string[][] = [];
    const { unit, hardware, tables } = vtdMachine(
      { scalableMode: true, deviceTlb: true, pageRequests: true },
      {
        observer: {
          descriptorsSubmitted: (words, at, count, slotWords) => {
            const of = (i: number) => words.subarray(at + i * slotWords, at + i * slotWords + 4);
            const hex = (i: number) => [...of(i)].map((word) => word.toString(16)).join(" ");
            submissions.push(Array.from({ length: count }, (_, i) => hex(i)));
          },
        },
      },
    );
    hardware.addDeviceTlb(DEVICE);
    unit.attach(DEVICE, tables(7).view, OPTIONS);
    submissions.length = 0;
    unit.detach(DEVICE);
    expect(submissions).toEqual([
      ["70017 0 0 0"], // the PASID cache,
      ["70026 0 0 0"], // the IOTLB,
      ["3 100 fffff001 7fffffff"], // the device's,
      ["45 2 0 0", "70026 0 0 0", "3 100 fffff001 7fffffff"], // draining,
      ["31 100 0 0"], // and the context of a device with nothing left
    ]);
  });

  test("gives its memory back with the unit, and its devices an answer", () => {
    const { unit, memory, queue, ask, answered, groups } = machine();
    ask({ group: 8 });
    queue.process();
    unit.destroy();
    expect(answered()).toEqual([[1, 8]]);
    groups[0]!.respond("success");
    expect(answered()).toEqual([]);
    expect(memory.framesInUse).toBe(1); // the top table of the domain
  });
});
