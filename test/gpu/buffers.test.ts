/** Shared buffers on a GPU: any mix of memory under one address, moved and taken back by their owner; and the GPU's own memory lent to others. */
import { describe, expect, test } from "vitest";
import { MiB, PAGE_SIZE, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { BarPages, DeviceMemoryBuffers, DmaBuf, type Exporter } from "../../src/consumers/dmabuf/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { finish } from "../../src/platform/index.ts";
import { gpuRig, isSame, mapPages, pattern, START } from "./rig.ts";

const AT = 2 ** 40;

describe("a shared buffer on a GPU", () => {
  test("of RAM, a peer below the same switch and one behind the bridge is read whole; the near peer is in no entry of the IOMMU", () => {
    const rig = gpuRig();
    mapPages(rig, 64);
    const { machine, peers } = rig.host;
    const ends = ["0.0.1", "0.1"].map((slot) => {
      const [pci] = rig.host.plug(slot, new DmaEngine({ memoryBytes: 65_536 }));
      const provider = peers.add(pci!.node, pci!.node.bars[0]!);
      return { phys: provider.bar.phys, length: 16 * PAGE_SIZE, provider };
    });
    const ram = Array.from({ length: 32 }, () => machine.pages.allocatePages(1)!).map((page) => ({
      phys: PhysPage.start(page),
      length: PAGE_SIZE,
    }));
    const vecs = [...ram.slice(0, 16), ...ends, ...ram.slice(16)];
    const bytes = pattern(5, 64 * PAGE_SIZE);
    let at = 0;
    for (const { phys, length } of vecs) {
      machine.memory.write(PhysAddr(phys), bytes.subarray(at, at + length));
      at += length;
    }
    const exporter: Exporter = {
      name: "mixed",
      lengthBytes: 64 * PAGE_SIZE,
      form: "vectors",
      teardown: "at-once",
      vectors: () => vecs,
      release: () => {},
    } as unknown as Exporter;
    const buffer = new DmaBuf(exporter, "mixed");
    const space = rig.gpu.device.openSpace(rig.memory);
    space.shareMemory({ start: START, end: START + 64 * PAGE_SIZE });
    const bound = space.bindBuffer(buffer, AT);
    const before = rig.gpu.dma.counters.snapshot();
    bound.bring();
    expect(rig.gpu.dma.counters.since(before).leavesWritten).toBe(48);
    const work = { do: "copy", from: AT, to: START, length: 64 * PAGE_SIZE } as const;
    expect(rig.gpu.device.run(space, work).status).toBe("done");
    const seen = new Uint8Array(64 * PAGE_SIZE);
    rig.memory.read(START as never, seen);
    expect(isSame(seen, bytes)).toBe(true);
    rig.gpu.device.close();
    buffer.release();
    const { leavesWritten, leavesCleared } = rig.gpu.dma.counters;
    expect(leavesWritten - leavesCleared).toBe(0);
  });

  test("in another GPU's memory moves to RAM and back under the work, and is refused when it is revoked", () => {
    const rig = gpuRig({ gpus: 2 });
    const { machine, peers } = rig.host;
    const owner = rig.host.machine.devices.find(({ model }) => model === rig.gpus[1]!.model)!;
    const provider = peers.add(owner.node, owner.node.bars[0]!);
    const places = { devicePages: new BarPages(provider), systemPages: machine.pages, memory: machine.memory };
    const migrating = new DeviceMemoryBuffers({ name: "gpu 1", provider, ...places }).allocate(MiB, "device");
    const space = rig.gpu.device.openSpace(rig.memory);
    const bound = space.bindBuffer(migrating.buffer, AT);
    const run = (seed: number): string => rig.gpu.device.run(space, { do: "fill", to: AT, length: MiB, seed }).status;
    const contents = (): Uint8Array => {
      const bytes = new Uint8Array(MiB);
      let at = 0;
      for (const { phys, length } of migrating.buffer.exporter.vectors()) {
        machine.memory.read(phys, bytes.subarray(at, at + length));
        at += length;
      }
      return bytes;
    };
    expect(run(3)).toBe("done");
    expect(rig.gpus[1]!.model.memory[1]).toBe(4); // it lies in the owner's memory
    for (const to of ["system", "device"] as const) {
      finish(migrating.migrate(0, MiB, to));
      expect([bound.isMapped, space.table.lookup(AT / PAGE_SIZE)]).toEqual([false, -1]);
      expect(isSame(contents(), pattern(3, MiB))).toBe(true);
      expect(run(3)).toBe("done");
    }
    finish(migrating.buffer.revoke());
    expect([run(9), bound.isMapped]).toEqual(["fault", false]);
    expect([...rig.gpu.device.refusals.keys()]).toEqual(["ERR_DMA_BUF_REVOKED"]);
    rig.gpu.device.close();
    migrating.buffer.release();
    rig.process.exit();
    expect(rig.leftovers()).toEqual([]);
  });
});
