/** A machine that moves under load: what arrives is what was there when it stopped; what is cut or damaged loses nothing. */
import { describe, expect, test } from "vitest";
import { crc32, MiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import { type MoveOptions, type MoveOutcome, MoveSource, MoveTarget } from "../../src/consumers/vfio/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { type Damage, type Guest, guestOf, linkPair, slowLink } from "./guest.ts";
import { type StandOptions, stand, stateOf } from "./stand.ts";

/** All memory of a guest, as one number. */
function memoryOf({ ram }: Guest): number {
  const bytes = new Uint8Array(ram.layout.pageCount * PAGE_SIZE);
  ram.read(0, bytes);
  return crc32(bytes);
}

interface Move {
  readonly source: Guest;
  readonly target: Guest;
  readonly mover: MoveSource;
  readonly outcome: MoveOutcome;
  readonly arrival: string;
}

/** Moves a guest of `guestBytes` under load: 50 MB/s of the processors, 20 MB/s of the device, over 1 GB/s. */
async function move(
  options: StandOptions & { move?: Partial<MoveOptions>; damage?: Damage; damageBack?: Damage } = {},
): Promise<Move> {
  const source = guestOf(stand(options), true);
  const target = guestOf(stand(options), false);
  const { pageCount } = source.ram.layout;
  source.processors.work(Math.floor(pageCount / 4));
  source.work(0, 100);
  const [near, far] = linkPair(options.damage, options.damageBack);
  const { clock } = source.place.host;
  const mover = new MoveSource(
    source.machine,
    slowLink(near, MiB, source.place, () => source.work(13, 5)),
    { pause: async () => void clock.step(), ...options.move },
  );
  const [outcome, arrival] = await Promise.all([mover.run(), new MoveTarget(target.machine, far).run()]);
  return { source, target, mover, outcome, arrival: arrival.outcome };
}

const LAYOUTS = [
  ["leaves of 4 KiB", vtdSecondStage({ leafSizes: [0] })],
  ["leaves of 2 MiB", vtdSecondStage({ leafSizes: [0, 9] })],
] as const;

describe.each(LAYOUTS)("a machine of 32 MiB under load, with %s", (_name, layout) => {
  test("arrives as it was when it stopped, and both sides go on alike", async () => {
    const { source, target, mover, outcome, arrival } = await move({
      guestBytes: 32 * MiB,
      layout,
      move: { stopBelowBytes: 262_144 },
    });
    expect([outcome.outcome, arrival]).toEqual(["moved", "running"]);
    expect(memoryOf(target)).toBe(memoryOf(source));
    expect(stateOf(target.place.first)).toEqual(stateOf(source.place.first));
    expect(mover.counts.rounds).toBeGreaterThan(1);
    expect(mover.counts.pagesAfterStop).toBeLessThan(1024);
    expect(mover.counts.untrustedRounds).toBe(0);

    // The source is no more; as an oracle it goes on, and is to be the same as the target at every time.
    source.place.first.migration.setState("running");
    source.processors.resume();
    target.packets = source.packets;
    for (const guest of [source, target]) guest.work(100, 700);
    expect(memoryOf(target)).toBe(memoryOf(source));
    expect(stateOf(target.place.first)).toEqual(stateOf(source.place.first));
    expect([source.place.close(), target.place.close()]).toEqual([[], []]);
  });

  test("whose device loses its log is sent again as a whole, and is right", async () => {
    const source = guestOf(stand({ guestBytes: 16 * MiB, layout }), true);
    const target = guestOf(stand({ guestBytes: 16 * MiB, layout }), false);
    source.processors.work(2000);
    const [near, far] = linkPair();
    let sent = 0;
    const link = slowLink(near, MiB, source.place, () => {
      source.work(13, 5);
      if (++sent === 5) source.place.first.model.log!.isLost = true;
    });
    const mover = new MoveSource(source.machine, link, { pause: async () => void source.place.host.clock.step() });
    const [outcome] = await Promise.all([mover.run(), new MoveTarget(target.machine, far).run()]);
    expect(outcome.outcome).toBe("moved");
    expect(mover.counts.untrustedRounds).toBe(1);
    expect(mover.counts.pages + mover.counts.zeroPages).toBeGreaterThan(2 * 4096);
    expect(memoryOf(target)).toBe(memoryOf(source));
    source.place.close();
    target.place.close();
  });
});

describe("a stream that breaks", () => {
  const small = { guestBytes: MiB, move: { stopBelowBytes: 65_536, maxRounds: 2 } };

  /** The source runs on with all it has, and could move again at once; the target never ran. */
  async function expectStayed(damage: Damage | undefined, damageBack?: Damage): Promise<string> {
    const { source, target, outcome, arrival, mover } = await move({
      ...small,
      ...(damage && { damage }),
      ...(damageBack && { damageBack }),
    });
    const told = `${JSON.stringify([damage, damageBack])} of ${mover.counts.bytes}`;
    if (outcome.outcome === "moved") {
      expect(memoryOf(target), told).toBe(memoryOf(source)); // the damage lay behind the end
      expect(arrival).toBe("running");
    } else if (outcome.outcome === "in-doubt") {
      expect(source.processors.isRunning, told).toBe(false);
      const before = memoryOf(source);
      if (arrival === "running") expect(memoryOf(target), told).toBe(before);
      else {
        expect(mover.stay()).toEqual([]);
        expect(source.place.first.migration.state).toBe("running");
        expect(memoryOf(source)).toBe(before);
      }
    } else {
      expect(outcome.broken).toEqual([]);
      expect(arrival, told).toBe("failed");
      expect([source.processors.isRunning, source.place.first.migration.state]).toEqual([true, "running"]);
      expect(target.processors.isRunning).toBe(false);
      const { received } = source.place.first.model;
      source.work(3, 4);
      expect(source.place.first.model.received).toBe(received + 4);
    }
    expect([source.place.close(), target.place.close()], told).toEqual([[], []]);
    return outcome.outcome;
  }

  test("cut anywhere, or with any byte damaged, loses nothing", async () => {
    const whole = (await move(small)).mover.counts.bytes;
    const random = Random.fromSeed(11);
    const seen = new Set<string>();
    for (let run = 0; run < 60; run++) {
      // Many near the end: there things are decided.
      const at = run % 3 === 0 ? whole - 1 - random.below(600) : random.below(whole);
      seen.add(await expectStayed({ at, kind: run % 2 === 0 ? "cut" : "flip" }));
    }
    expect(seen).toContain("stayed");
  });

  test("on the way back it loses nothing either; between go and the answer it leaves doubt, and both sides stopped or one running", async () => {
    const seen = new Set<string>();
    for (let at = 0; at < 110; at += 3)
      for (const kind of ["cut", "flip"] as const) seen.add(await expectStayed(undefined, { at, kind }));
    expect(seen).toContain("in-doubt");
    expect(seen).toContain("stayed");
  });
});

test.each([
  ["memory", { guestBytes: 8 * MiB }, {}],
  ["devices", {}, { name: "other" }],
] as const)("machines that differ in %s do not move, and the source is told why", async (what, options, device) => {
  const source = guestOf(stand(), true);
  const there = guestOf(stand(options), false);
  const target = { ...there.machine, devices: [{ ...there.machine.devices[0]!, ...device }] };
  const [near, far] = linkPair();
  const mover = new MoveSource(source.machine, near, { pause: async () => {} });
  const [outcome, arrival] = await Promise.all([mover.run(), new MoveTarget(target, far).run()]);
  expect([outcome.outcome, arrival.outcome]).toEqual(["stayed", "failed"]);
  expect(String(outcome.outcome === "stayed" && outcome.error)).toContain(what === "memory" ? "blocks" : what);
  expect(source.place.first.migration.state).toBe("running");
  expect([source.place.close(), there.place.close()]).toEqual([[], []]);
});

test("a source whose device refuses to stop stays, and its processors run again", async () => {
  const source = guestOf(stand(), true);
  const target = guestOf(stand(), false);
  const [near, far] = linkPair();
  const { commands } = source.place;
  const run = commands.run.bind(commands);
  commands.run = (name, ...given) => {
    if (name === "SUSPEND" && given[1] === 2) throw new Error("planted");
    return run(name, ...given);
  };
  const mover = new MoveSource(source.machine, near, { pause: async () => void source.place.host.clock.step() });
  const [outcome, arrival] = await Promise.all([mover.run(), new MoveTarget(target.machine, far).run()]);
  expect([outcome.outcome, arrival.outcome]).toEqual(["stayed", "failed"]);
  expect([source.processors.isRunning, source.place.first.migration.state]).toEqual([true, "running"]);
  expect([source.place.close(), target.place.close()]).toEqual([[], []]);
});
