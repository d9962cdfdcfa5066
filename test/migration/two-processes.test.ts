/** Two machines in two processes, and a real stream between them: what arrives there is what stopped here. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { MiB } from "../../src/base/index.ts";
import { MoveSource } from "../../src/consumers/vfio/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { many } from "../effort.ts";
import { digestOf } from "./digest.ts";
import { type Guest, guestOf, slowLink } from "./guest.ts";
import { nodeLink } from "./node-link.ts";
import { stand } from "./stand.ts";

interface Setting {
  readonly guestBytes: number;
  /** log2 of the pages of the largest leaf. */
  readonly leaf: number;
}

const start = (setting: Setting, ...more: string[]): ChildProcess =>
  spawn(
    process.execPath,
    ["--import", "tsx", join(import.meta.dirname, "arriving-process.ts"), JSON.stringify(setting), ...more],
    { stdio: ["ignore", "pipe", "inherit", more.length > 0 ? "ignore" : "pipe"] },
  );

/** What the other process says at its end. */
async function saidBy(child: ChildProcess): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  for await (const part of child.stdout!) parts.push(part as Buffer);
  const text = Buffer.concat(parts).toString();
  return text === "" ? { outcome: "gone" } : (JSON.parse(text) as Record<string, unknown>);
}

function loaded({ guestBytes, leaf }: Setting): Guest {
  const layout = vtdSecondStage({ leafSizes: leaf === 0 ? [0] : [0, leaf] });
  const guest = guestOf(stand({ guestBytes, layout }), true);
  guest.processors.work(guest.ram.layout.pageCount / 8);
  guest.work(0, 100);
  return guest;
}

/** Moves over `stream` at 1 GB/s, while processors write 50 MB/s and the device 20 MB/s. */
const moverOf = (guest: Guest, stream: Duplex, work: () => void = () => {}): MoveSource =>
  new MoveSource(
    guest.machine,
    slowLink(nodeLink(stream), MiB, guest.place, () => {
      guest.work(13, 5);
      work();
    }),
    { pause: async () => void guest.place.host.clock.step(), stopBelowBytes: 262_144 },
  );

/** 256 MiB in the long run; never less than any buffer on the way holds. */
const GUEST_MIB = Math.min(256, many(24));

test.each([
  [`${GUEST_MIB} MiB with leaves of 2 MiB, over a pipe`, { guestBytes: GUEST_MIB * MiB, leaf: 9 }, false],
  [`${GUEST_MIB} MiB with leaves of 4 KiB, over a socket`, { guestBytes: GUEST_MIB * MiB, leaf: 0 }, true],
] as const)(
  "%s: memory, device and processors are equal when they arrive, and go on alike",
  async (_name, setting, bySocket) => {
    const guest = loaded(setting);
    const folder = mkdtempSync(join(tmpdir(), "dmalink-move-"));
    try {
      const address = join(folder, "link");
      const server = createServer();
      let child: ChildProcess;
      let stream: Duplex;
      if (bySocket) {
        server.listen(address);
        await once(server, "listening");
        child = start(setting, address);
        [stream] = (await once(server, "connection")) as [Duplex];
      } else {
        child = start(setting);
        stream = child.stdio[3] as Duplex;
      }
      const said = saidBy(child);
      const mover = moverOf(guest, stream);
      const { outcome } = await mover.run();
      const arrived = digestOf(guest);
      // The source, as an oracle, does what the target does after its arrival.
      guest.place.first.migration.setState("running");
      guest.processors.resume();
      guest.packets = 0;
      guest.work(100, 200);
      const later = digestOf(guest);
      server.close();
      expect(await said).toEqual({ outcome: "running", arrived, later, leaks: [] });
      expect(outcome).toBe("moved");
      expect(mover.counts.rounds).toBeGreaterThan(1);
      expect(mover.counts.bytesAfterStop).toBeLessThan(16 * MiB);
      expect(guest.place.close()).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  180_000,
);

test.each([1, 7])(
  "if the other process is killed after %i MiB, the source runs on with all it has",
  async (afterMiB) => {
    const setting = { guestBytes: 64 * MiB, leaf: 9 };
    const guest = loaded(setting);
    const child = start(setting);
    let sent = 0;
    const mover = moverOf(guest, child.stdio[3] as Duplex, () => {
      if (++sent === afterMiB) child.kill("SIGKILL");
    });
    const outcome = await mover.run();
    expect(outcome).toMatchObject({ outcome: "stayed", broken: [] });
    expect([guest.processors.isRunning, guest.place.first.migration.state]).toEqual([true, "running"]);
    const { received } = guest.place.first.model;
    guest.work(5, 5);
    expect(guest.place.first.model.received).toBe(received + 5);
    expect(guest.place.close()).toEqual([]);
  },
  180_000,
);
