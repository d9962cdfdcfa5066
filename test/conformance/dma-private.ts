/** What the DMA API promises in a confidential guest, about memory that is private. */
import { describe, expect, test } from "vitest";
import { PhysAddr } from "../../src/base/index.ts";
import { BOTH, CALLS, expectBytes, Filled, gather, twoSteps } from "./dma-calls.ts";
import { build, type Way } from "./dma-ways.ts";
import type { Format } from "./formats.ts";
import { outcome, pattern } from "./outcome.ts";

export function privateSuite(way: Way, format: Format | undefined): void {
  const make = () => build(way, format);
  describe("private memory", () => {
    test("reaches a device outside the trust only as a copy that was made for it, and comes back by one", () => {
      const stand = make();
      const memory = new Filled(stand, 8192, 1, false);
      const before = stand.state;
      for (const call of ["one shot each", "mapScatterlist"]) {
        const mapped = CALLS[call]!(stand, [{ phys: PhysAddr(memory.phys + 100), length: 5000 }], BOTH);
        expectBytes(gather(stand, mapped.outputs), memory.bytes.slice(100, 5100), call);
        expect(stand.engine.scatter(mapped.outputs, pattern(5000, 7))).toBe(true);
        mapped.unmap();
        memory.bytes.set(pattern(5000, 7), 100);
        memory.check(call);
      }
      expect(stand.machine.encryption!.touches).toEqual([]);
      stand.flush();
      expect(stand.state).toEqual(before);
    });

    test("is touched in vain by a device that goes there by itself", () => {
      const stand = make();
      const memory = new Filled(stand, 8192, 1, false);
      if (stand.domain) {
        // Somebody below the API mapped it: encryption is what keeps the plaintext.
        const inside = build(way, format, { tdi: "run" });
        const secret = new Filled(inside, inside.granule, 1, false);
        const mapping = inside.dma.map(secret.phys, inside.granule, BOTH);
        inside.device.node.trusted = false;
        const seen = inside.deviceRead(mapping.address, 64);
        expect(seen === undefined).toBe(way.options.confidential === "refused");
        seen?.forEach((byte, i) => void expect(byte).not.toBe(secret.bytes[i]));
      } else expect(stand.deviceRead(memory.phys, 64)).toBeUndefined();
      memory.check();
    });

    if (way.noRefusal === undefined)
      test("of one buffer is not seen around the copy of another", () => {
        const stand = make();
        const secret = new Filled(stand, 32_768, 200, false);
        secret.bytes.fill(0xa5);
        stand.cpuWrite(secret.phys, secret.bytes);
        const { pool } = stand.host;
        const first = stand.dma.map(secret.phys, 32_768, BOTH);
        first.unmap();
        stand.flush();
        pool!.nextIndex = 0;
        const small = new Filled(stand, 4096, 1, false);
        small.bytes.fill(1);
        stand.cpuWrite(small.phys, small.bytes);
        const mapping = stand.dma.map(PhysAddr(small.phys), 100, BOTH);
        const start = Math.floor(mapping.address / stand.granule) * stand.granule;
        expect(stand.deviceRead(start, stand.granule)!.includes(0xa5)).toBe(false);
      });

    test("and shared memory are not converted while a device reaches them, by whatever call", () => {
      const stand = build(way, format, { tdi: "run" });
      const calls = { ...CALLS, ...(way.noTwoSteps === undefined && { "two steps": twoSteps }) };
      for (const shared of [false, true])
        for (const [name, call] of Object.entries(calls)) {
          const phys = stand.block(stand.granule, shared);
          const convert = () => outcome(() => stand.reach!.convert((phys / 4096) as never, 1, "shared"));
          const mapped = call(stand, [{ phys, length: stand.granule }], BOTH);
          expect([name, convert()]).toEqual([name, ["ERR_DMA_CONVERT", "EBUSY"]]);
          mapped.unmap();
          stand.flush();
          expect([name, convert()]).toEqual([name, "ok"]);
        }
      if (stand.dma.device.coherent)
        stand.dma.map(stand.block(stand.granule), stand.granule, BOTH, { requireCoherent: true }).unmap();
      expect([...stand.reach!.pages]).toEqual([]);
    });

    test("of a device inside the trust is mapped where it lies", () => {
      const stand = build(way, format, { tdi: "run" });
      const memory = new Filled(stand, 2 * stand.granule, 1, false);
      for (const [name, call] of Object.entries(CALLS)) {
        const mapped = call(stand, [{ phys: memory.phys, length: stand.granule }], BOTH);
        expectBytes(gather(stand, mapped.outputs), memory.bytes.slice(0, stand.granule), name);
        expect(stand.host.pool!.used).toBe(0);
        mapped.unmap();
      }
    });

    if (way.noTwoSteps === undefined)
      test("is refused in two steps, because a link never copies what could be mapped in whole granules", () => {
        const stand = make();
        const memory = new Filled(stand, 2 * stand.granule, 1, false);
        const range = stand.reserve(2 * stand.granule);
        const list = [{ phys: memory.phys, length: stand.granule }];
        const before = stand.state;
        for (const call of [
          () => range.link(0, memory.phys, stand.granule, BOTH),
          () => range.linkVecs(0, list, BOTH),
          () => stand.dma.mapVecs(list, BOTH),
          () => stand.dma.mapLinear(list, BOTH),
        ])
          expect(outcome(call)).toEqual(["ERR_DMA_PRIVATE", "EPERM"]);
        expect(stand.state).toEqual(before);
      });
  });
}
