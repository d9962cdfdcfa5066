/** Operations of the kind dma-api on memory: allocations, contents, and what devices read and write. */
import { crc32 } from "node:zlib";
import { type DmaAddr, type IovaPage, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { type CoherentMemory, type Dma, type DmaAttributes, termsOf } from "../../src/dma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { addressOf, type Held } from "./dma-api-objects.ts";
import type { Operation, Replay } from "./dma-api-replay.ts";
import { known, type Line } from "./judge.ts";
import { hex } from "./kernel-events.ts";
import { attributesOf, directionOf, errnoOf, number, pattern } from "./words.ts";

/** Whether memory is asked for where nobody may wait: then it is one block. */
const CONTIGUOUS: Readonly<Record<string, boolean>> = { kernel: false, atomic: true, nowait: true };

export function memoryOperations(replay: Replay): Readonly<Record<string, Operation>> {
  const { machine } = replay;
  return {
    allocCoherent: (line, held) =>
      allocate(replay, line, held, (dma, size, attributes) => dma.allocCoherent(size, attributes)),
    allocPages: (line, held) => allocate(replay, line, held, (dma, size) => dma.allocPages(size, directionOf(line))),
    allocNoncontiguous: (line, held) =>
      allocate(replay, line, held, (dma, size, attributes) =>
        dma.allocNoncontiguous(size, directionOf(line), attributes),
      ),
    freeCoherent: (line, { memory }) => {
      if (line["size"] === undefined) memory?.handle.free();
      else if (memory) freePart(replay, memory.handle, number(line["size"]));
    },
    freePages: (_line, { memory }) => memory?.handle.free(),
    freeNoncontiguous: (_line, { memory }) => memory?.handle.free(),
    cpuFill: (line) => {
      const bytes = pattern(number(line["seed"]), number(line["size"]));
      machine.memory.write(PhysAddr(number(line["phys"])), bytes);
    },
    cpuRead: (line) => {
      const bytes = new Uint8Array(number(line["size"]));
      machine.memory.read(PhysAddr(number(line["phys"])), bytes);
      sameBytes(replay, line, bytes);
    },
    deviceRead: (line, held) => access(replay, line, held, "read"),
    deviceWrite: (line, held) => access(replay, line, held, "write"),
    deviceDma: (line, held) => transfer(replay, line, held),
  };
}

function allocate(
  replay: Replay,
  line: Line,
  held: Held,
  call: (dma: Dma, size: number, attributes?: DmaAttributes) => CoherentMemory,
): void {
  const { dma, machine } = replay;
  const size = number(line["size"]);
  const pages = Math.ceil(size / 4096);
  const events = (line["events"] ?? []) as [string, string, string, string][];
  const runs = events
    .filter(([name]) => name === "map")
    .map(([, , phys, bytes]) => ({ page: number(phys) / 4096, pages: number(bytes) / 4096 }));
  const direct = line["dma"] === undefined ? [] : [{ page: number(line["dma"]) / 4096, pages }];
  const noAddress = line["ok"] === false && events.length > 0;
  const translated = noAddress ? [{ page: 0x10000, pages }] : runs;
  machine.pages.feed(dma.domain ? translated : direct);
  const contiguous = line["gfp"] !== undefined && known("memory of the kind", CONTIGUOUS, line["gfp"]);
  const attributes = {
    ...attributesOf(line["attrs"]),
    ...(contiguous && !replay.misuse && { forceContiguous: true }),
  };
  let found: CoherentMemory | undefined;
  const errno = errnoOf(() => {
    found = call(dma, size, attributes);
  });
  replay.same(`ok (${errno})`, line["ok"], found !== undefined);
  if (!found) return;
  replay.same("dma", line["dma"], hex(found.address));
  held.dev = replay.dev;
  held.memory = { handle: found, direction: line["dir"] ? directionOf(line) : "bidirectional" };
  if (line["zeroed"] === true)
    for (const { page, pages } of found.blocks) machine.memory.forget(PhysAddr(page * 4096), pages * 4096);
}

/** A handle always frees all it has; what the kernel does with another size is done to the domain here. */
function freePart(replay: Replay, { address, phys }: CoherentMemory, size: number): void {
  const { dma, machine, misuse } = replay;
  misuse?.debug.of(dma.device)?.freeing("coherent", address, size, phys, termsOf("bidirectional"));
  replay.rule("handles free all");
  machine.events.dmaCalled({ name: "dma_free" });
  const pages = Math.ceil(size / 4096);
  dma.domain?.release((address / 4096) as IovaPage, pages, pages);
}

/** What a device would read or write through the tables as they are, whatever the unit remembers. */
function access(replay: Replay, line: Line, held: Held, way: "read" | "write"): void {
  const size = number(line["size"]);
  const address = addressOf(held, number(line["offset"]));
  const bytes = way === "write" ? pattern(number(line["seed"]), size) : new Uint8Array(size);
  const faults = replay.machine.transfer(replay.dev, address as DmaAddr, bytes, way);
  replay.same("faults", line["faults"] ?? 0, faults);
  if (way === "read") sameBytes(replay, line, bytes);
}

/** A real transfer, through the unit and what it remembers; to physical addresses if the device is not translated. */
function transfer(replay: Replay, line: Line, held: Held): void {
  const { machine, dev } = replay;
  const { domain, requester } = machine.device(dev);
  const untranslated = { translate: (_requester: number, page: number) => page as PhysPage };
  const unit = machine.hardware ?? machine.virtio?.hardware;
  const engine = new DmaEngine(requester, domain && unit ? unit : untranslated, machine.memory);
  const [at, size] = [number(line["buffer"]), number(line["size"])];
  const address = addressOf(held, number(line["offset"])) as DmaAddr;
  const part = machine.engineBuffer(dev).subarray(at, at + size);
  const done = line["direction"] === "read" ? engine.read(address, part) : engine.write(address, part);
  // The kernel does not log every fault; of the others the bytes tell.
  const logged = ((line["log"] ?? []) as string[]).flatMap((text) => faultIn(text) ?? []);
  const seen = machine.faults();
  for (const fault of logged) if (!seen.includes(fault)) replay.same("fault", fault, seen);
  if (logged.length > 0) replay.same("done", false, done);
}

/** A fault as VT-d's driver prints it, in the words of {@link KernelMachine.faults}. */
function faultIn(text: string): string | undefined {
  const words =
    /DMA (Write|Read) .*device \[(?:0000:)?(\S+)\] fault addr (0x[0-9a-f]+) \[fault reason (0x[0-9a-f]+)\]/.exec(text);
  if (!words) return undefined;
  const [, access, device, address, reason] = words;
  return `${access!.toLowerCase()} of ${device} at ${hex(number(address))}: reason ${number(reason)}`;
}

function sameBytes(replay: Replay, line: Line, bytes: Uint8Array): void {
  replay.same("crc32", line["crc32"], crc32(bytes).toString(16).padStart(8, "0"));
  if (line["head"] !== undefined) replay.same("head", line["head"], Buffer.from(bytes.subarray(0, 32)).toString("hex"));
}
