/** Recording, on a directory tree that behaves like tracefs: what is asked of the kernel, and that all of it is undone. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DEFAULT_CODECS } from "../../../trace/codecs.ts";
import { readDatFile } from "../../../trace/dat-file.ts";
import { openTrace } from "../../../trace/index.ts";
import { SAMPLE_FORMATS } from "../../../trace/sample-formats.ts";
import { DatWriter } from "../../../trace/write-dat.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { ownerName } from "../files/owner.ts";
import { StopRequest, UndoOnExit } from "../files/undo-on-exit.ts";
import { addProbes, hasTwoStep, PROBES, removeProbes } from "./probes.ts";
import { filterOf, planRecording, SYSTEMS } from "./record.ts";
import { recordScript } from "./script.ts";
import { recordWithTraceCmd } from "./trace-cmd.ts";
import { findTracefs, Tracefs } from "./tracefs.ts";
import { instanceName, recordWithTracefs, removeStale, type TracefsPlan } from "./tracefs-recorder.ts";

const HEADER_PAGE = [
  "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;",
  "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;",
  "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n",
].join("\n");

/** A tree in which making an instance fills it, removing it empties it, and probes come and go. */
class FakeTracefs extends Tracefs {
  readonly log: string[] = [];
  /** A file whose write fails, and how. */
  failOn: { readonly file: RegExp; readonly code: string } | undefined;
  pages: Uint8Array[] = [new Uint8Array(0), new Uint8Array(0)];
  stats = "entries: 0\noverrun: 0\ndropped events: 0\n";

  constructor(root: string) {
    super(root);
    for (const { system, text } of SAMPLE_FORMATS) {
      const name = /^name: (\S+)/.exec(text)![1]!;
      this.put(`events/${system}/${name}/format`, text);
      this.put(`events/${system}/enable`, "0");
    }
    this.put("dynamic_events", "");
    this.put("saved_cmdlines", "77 fio\n");
    mkdirSync(join(root, "instances"));
  }

  put(file: string, content: string | Uint8Array): void {
    const path = join(this.root, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }

  override write(file: string, text: string): void {
    if (this.failOn?.file.test(`${file} ${text}`))
      throw new EnvironmentError(`cannot write ${file}: ${this.failOn.code}`);
    this.log.push(`${file.replace(instanceName(), "I")} = ${text.trim()}`);
    if (file !== "dynamic_events") {
      super.write(file, text);
      return;
    }
    appendFileSync(join(this.root, file), text);
    const made = /^[fpr]:dmalink\/(\S+)/.exec(text)?.[1];
    const gone = /^-:dmalink\/(\S+)/.exec(text)?.[1];
    if (made) this.put(`events/dmalink/${made}/format`, "");
    if (gone) rmSync(join(this.root, `events/dmalink/${gone}`), { recursive: true });
  }

  override makeInstance(name: string): void {
    super.makeInstance(name);
    const at = `instances/${name}`;
    for (const file of ["tracing_on", "buffer_size_kb"]) this.put(`${at}/${file}`, "0");
    this.put(`${at}/trace_clock`, "[local] global mono\n");
    this.put(`${at}/events/header_page`, HEADER_PAGE);
    this.put(`${at}/events/header_event`, "# compressed entry header\n");
    for (const system of ["dma", "iommu"])
      for (const file of ["enable", "filter"]) this.put(`${at}/events/${system}/${file}`, "");
    this.pages.forEach((pages, cpu) => {
      this.put(`${at}/per_cpu/cpu${cpu}/trace_pipe_raw`, pages);
      this.put(`${at}/per_cpu/cpu${cpu}/stats`, this.stats);
    });
  }

  override removeInstance(name: string): void {
    this.log.push(`rmdir ${name.replace(instanceName(), "I")}`);
    rmSync(join(this.root, "instances", name), { recursive: true });
  }

  get instances(): string[] {
    return readdirSync(join(this.root, "instances"));
  }
}

let folder = "";
let fake: FakeTracefs;
let plan: TracefsPlan;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-record-"));
  fake = new FakeTracefs(join(folder, "tracing"));
  plan = {
    file: join(folder, "out.dat"),
    bufferKiB: 1024,
    clock: "mono",
    stacks: false,
    systems: [
      { name: "dma", filter: 'device == "0000:00:04.0"' },
      { name: "iommu", filter: "" },
    ],
  };
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The pages of a small recording on two CPUs, and the file they came from. */
async function recordedPages(): Promise<{ pages: Uint8Array[]; events: number }> {
  const writer = new DatWriter({ formats: SAMPLE_FORMATS, cpus: 2 });
  for (let i = 0; i < 300; i++) {
    const values = { device: "0000:00:04.0", phys_addr: 0x1000 * i, dma_addr: 0xffff0000 + i, size: 4096, dir: 1 };
    writer.add(i % 2, BigInt(1_000_000 + i * 1000), writer.encode("dma_map_phys", 77, values));
  }
  const bytes = writer.finish();
  const input = { name: "x", size: bytes.length, read: async (at: number, n: number) => bytes.subarray(at, at + n) };
  const { extents } = await readDatFile(input, DEFAULT_CODECS, false);
  return { pages: extents.map(({ offset, size }) => bytes.slice(offset, offset + size)), events: 300 };
}

/** A folder with `megabytes` of room and no more: a disk of its own where that can be mounted. */
async function onSmallDisk(megabytes: number, run: (disk: string) => Promise<void>): Promise<void> {
  const disk = join(folder, "disk");
  mkdirSync(disk);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "none", disk]).status !== 0) return;
  try {
    await run(disk);
  } finally {
    spawnSync("umount", ["-l", disk]);
  }
}

/** The pages of each CPU, as the file has them. */
async function pagesIn(file: string): Promise<Buffer[]> {
  const bytes = readFileSync(file);
  const input = { name: "x", size: bytes.length, read: async (at: number, n: number) => bytes.subarray(at, at + n) };
  const { extents } = await readDatFile(input, DEFAULT_CODECS, false);
  return extents.map(({ offset, size }) => bytes.subarray(offset, offset + size));
}

/** Megabytes are compared as bytes, not one by one. */
function expectSame(found: readonly Uint8Array[], pages: readonly Uint8Array[]): void {
  const digest = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
  expect(found.map(digest)).toEqual(pages.map(digest));
}

/** As many of each CPU's pages as the file has. */
async function expectedPages(pages: readonly Uint8Array[], file: string): Promise<Buffer[]> {
  return (await pagesIn(file)).map(({ length }, cpu) => Buffer.from(pages[cpu]!).subarray(0, length));
}

describe("a recording by tracefs", () => {
  test("is a trace.dat with the pages of every CPU, their formats, tasks, clock and losses", async () => {
    const { pages, events } = await recordedPages();
    fake.pages = pages;
    fake.stats = "entries: 150\noverrun: 3\ndropped events: 1\n";
    const undo = new UndoOnExit();
    await recordWithTracefs(fake, plan, undo, async () => undefined);
    expect(undo.run()).toEqual([]);
    const bytes = readFileSync(plan.file);
    const trace = await openTrace({
      name: "out.dat",
      size: bytes.length,
      read: async (at, n) => bytes.subarray(at, at + n),
    });
    const seen: string[] = [];
    let count = 0;
    for await (const batch of trace.batches())
      for (let row = 0; row < batch.count; row++) {
        count++;
        seen.push(`${trace.types[batch.type[row]!]!.name} ${trace.strings[batch.task[row]!]}`);
      }
    expect([trace.format, trace.cpus, count, trace.lost]).toEqual(["trace.dat v6", 2, events, 8]);
    expect(new Set(seen)).toEqual(new Set(["dma_map_phys fio"]));
    expect(trace.system).toMatch(/^Linux /);
  });

  test("asks the kernel for an instance of its own, and switches nothing else on", async () => {
    const undo = new UndoOnExit();
    await recordWithTracefs(fake, plan, undo, async () => undefined);
    undo.run();
    expect(fake.log).toEqual([
      "instances/I/tracing_on = 0",
      "instances/I/buffer_size_kb = 1024",
      "instances/I/trace_clock = mono",
      'instances/I/events/dma/filter = device == "0000:00:04.0"',
      "instances/I/events/dma/enable = 1",
      "instances/I/events/iommu/enable = 1",
      "instances/I/tracing_on = 1",
      "instances/I/tracing_on = 0",
      "rmdir I",
    ]);
    expect(readdirSync(folder).sort()).toEqual(["out.dat", "tracing"]);
  });

  test.each([
    ["buffer_size_kb", /buffer_size_kb/],
    ["a filter", /filter/],
    ["an event", /iommu\/enable/],
    ["switching it on", /tracing_on 1/],
    ["switching it off", /tracing_on 0/],
  ])("a kernel that refuses %s: the error says so, and nothing is left behind", async (_, file) => {
    fake.failOn = { file, code: "EINVAL" };
    const undo = new UndoOnExit();
    await expect(recordWithTracefs(fake, plan, undo, async () => undefined)).rejects.toThrow(/cannot write/);
    expect(undo.run()).toEqual([]);
    expect(fake.instances).toEqual([]);
    expect(readdirSync(folder)).toEqual(["tracing"]);
  });

  test("a disk that fills ends the recording; what there was is in the file, and nothing else is left", async () => {
    const { pages } = await recordedPages();
    // Twice what the disk takes.
    fake.pages = pages.map((some) => Buffer.concat(Array.from({ length: 450 }, () => some)));
    await onSmallDisk(6, async (disk) => {
      const file = join(disk, "out.dat");
      const undo = new UndoOnExit();
      const { trouble } = await recordWithTracefs(fake, { ...plan, file }, undo, () => new Promise(() => undefined));
      expect(trouble).toMatch(/ENOSPC/);
      expect(undo.run()).toEqual([]);
      expect(readdirSync(disk)).toEqual(["out.dat"]);
      const size = statSync(file).size;
      expect(size).toBeGreaterThan(4 * 2 ** 20);
      expectSame(await pagesIn(file), await expectedPages(fake.pages, file));
    });
  });

  test("a recording that leaves no room for a copy of itself is joined all the same", async () => {
    const { pages } = await recordedPages();
    fake.pages = pages.map((some) => Buffer.concat(Array.from({ length: 140 }, () => some)));
    const whole = fake.pages.reduce((sum, { length }) => sum + length, 0);
    await onSmallDisk(6, async (disk) => {
      const file = join(disk, "out.dat");
      const undo = new UndoOnExit();
      expect(whole).toBeGreaterThan(3 * 2 ** 20);
      expect(await recordWithTracefs(fake, { ...plan, file }, undo, async () => undefined)).toEqual({
        trouble: undefined,
      });
      undo.run();
      expect(readdirSync(disk)).toEqual(["out.dat"]);
      expectSame(await pagesIn(file), fake.pages);
    });
  });

  test("what cannot be joined stays, every part of it, and the error says how to join it", async () => {
    const { pages } = await recordedPages();
    fake.pages = pages;
    let asked = 0;
    const read = fake.read.bind(fake);
    fake.read = (name) => {
      if (name.endsWith("/stats") && ++asked > 2) throw new EnvironmentError("the kernel says no");
      return read(name);
    };
    const undo = new UndoOnExit();
    await expect(recordWithTracefs(fake, plan, undo, async () => undefined)).rejects.toThrow(
      /the kernel says no[\s\S]*is kept, a file for each CPU[\s\S]*trace-cmd restore -o recording\.dat \S+cpu0 \S+cpu1/,
    );
    undo.run();
    for (const [i, some] of pages.entries()) expect(readFileSync(`${plan.file}.cpu${i}`)).toEqual(Buffer.from(some));
  });

  test("what is joined by half is made whole by the commands that the error gives", async () => {
    const { pages } = await recordedPages();
    fake.pages = pages.map((some) => Buffer.concat(Array.from({ length: 90 }, () => some)));
    await onSmallDisk(6, async (disk) => {
      const file = join(disk, "out.dat");
      let asked = 0;
      const read = fake.read.bind(fake);
      fake.read = (name) => {
        if (name !== "saved_cmdlines" || ++asked < 2) return read(name);
        // Somebody fills the disk, and the head has grown: it fits into what was set aside, and a piece of the pages does not.
        const aside = statSync(file).size;
        spawnSync("dd", ["if=/dev/zero", `of=${join(disk, "other")}`, "bs=4k"]);
        return "7 x\n".repeat((aside - (aside - 512 * 1024) / 2 - 100 * 1024) / 4);
      };
      const undo = new UndoOnExit();
      const error: Error = await recordWithTracefs(fake, { ...plan, file }, undo, async () => undefined).then(
        () => new Error("joined"),
        (reason: Error) => reason,
      );
      undo.run();
      expect(error.message).toMatch(/ENOSPC[\s\S]*is kept/);
      rmSync(join(disk, "other"));
      rmSync(file, { force: true }); // as the command's undo does
      const commands = error.message.split("\n").filter((line) => line.startsWith("  "));
      expect(commands.at(-1)).toMatch(/^ {2}mv \S+ recording\.dat$/);
      expect(spawnSync("sh", ["-ec", commands.join("\n")], { cwd: folder }).status).toBe(0);
      expectSame(await pagesIn(join(folder, "recording.dat")), fake.pages);
    });
  });

  test("a CPU that fills as fast as it is emptied keeps neither the end nor the other CPUs out", async () => {
    const { pages } = await recordedPages();
    fake.pages = pages;
    const page = pages[0]!.slice(0, 4096);
    let first = -1;
    fake.openPages = (name) => {
      const handle = Tracefs.prototype.openPages.call(fake, name);
      if (name.includes("cpu0/")) first = handle;
      return handle;
    };
    let left = 20_000;
    fake.readPage = (handle, into) => {
      if (handle !== first) return Tracefs.prototype.readPage.call(fake, handle, into);
      if (left-- <= 0) return 0;
      into.set(page);
      return page.length;
    };
    const undo = new UndoOnExit();
    let leftAtEnd = 0;
    await recordWithTracefs(fake, plan, undo, async () => {
      await new Promise((done) => setTimeout(done, 5));
      leftAtEnd = left;
    });
    undo.run();
    expect(leftAtEnd).toBeGreaterThan(0); // it was heard while there was still more to read
    expect((await pagesIn(plan.file))[1]).toEqual(Buffer.from(pages[1]!));
  });

  test("is written into files of its own: never through a link that somebody laid there", async () => {
    const victim = join(folder, "victim");
    writeFileSync(victim, "precious");
    symlinkSync(victim, `${plan.file}.cpu0`);
    symlinkSync(victim, plan.file);
    const undo = new UndoOnExit();
    await recordWithTracefs(fake, plan, undo, async () => undefined);
    undo.run();
    expect(readFileSync(victim, "utf8")).toBe("precious");
  });

  test("a load that fails takes the recording with it", async () => {
    const undo = new UndoOnExit();
    const failing = recordWithTracefs(fake, plan, undo, () => Promise.reject(new Error("no such command")));
    await expect(failing).rejects.toThrow("no such command");
    undo.run();
    expect([fake.instances, existsSync(plan.file)]).toEqual([[], false]);
  });

  test("what a recorder that was killed left is taken away; a living one's is not", () => {
    const own = ownerName();
    const [pid, start, place] = own.split("-") as [string, string, string];
    const gone = spawnSync("true").pid;
    const kept = [
      `dmalink.${own}`,
      `dmalink.${gone}-${start}-${place}f`, // of another container: whether it lives cannot be seen from here
      "dmalink.77", // nobody's that we know
      "other",
    ];
    const stale = [`dmalink.${gone}-${start}-${place}`, `dmalink.${pid}-${Number(start) - 1}-${place}`]; // the number is used again
    for (const name of [...kept, ...stale]) fake.makeInstance(name);
    removeStale(fake);
    expect(fake.instances.sort()).toEqual(kept.sort());
  });
});

describe("probes", () => {
  test("are function probes; a kernel that refuses those gets kprobes", () => {
    fake.failOn = { file: /dynamic_events f:/, code: "EINVAL" };
    addProbes(fake, true);
    expect(fake.log.map((line) => line.slice(0, 40))).toEqual(
      PROBES.map(({ name, atReturn }) =>
        `dynamic_events = ${atReturn ? "r" : "p"}:dmalink/${name} ${name}`.slice(0, 40),
      ),
    );
    removeProbes(fake);
    expect(readdirSync(join(fake.root, "events"))).toContain("dmalink");
    expect(readdirSync(join(fake.root, "events/dmalink"))).toEqual([]);
  });

  test("that are already there are used as they are", () => {
    addProbes(fake, true);
    const asked = fake.log.length;
    addProbes(fake, true);
    expect(fake.log).toHaveLength(asked);
  });

  test("one that the kernel refuses takes the others with it", () => {
    fake.failOn = { file: /dynamic_events [fp]:dmalink\/dma_iova_sync/, code: "EINVAL" };
    expect(() => addProbes(fake, true)).toThrow(EnvironmentError);
    expect(readdirSync(join(fake.root, "events/dmalink"))).toEqual([]);
  });

  test("need the two-step functions, and probe events", () => {
    expect(() => addProbes(fake, false)).toThrow(/6\.16/);
    rmSync(join(fake.root, "dynamic_events"));
    expect(() => addProbes(fake, true)).toThrow(/CONFIG_FPROBE_EVENTS/);
    writeFileSync(join(folder, "kallsyms"), "0 T dma_iova_try_alloc\n0 T dma_iova_link\n");
    expect([hasTwoStep(join(folder, "kallsyms")), hasTwoStep(join(folder, "none"))]).toEqual([true, false]);
  });
});

describe("where tracefs is", () => {
  test("another system, nothing mounted, no permission: the cure", () => {
    expect(() => findTracefs("darwin")).toThrow(/--print-script/);
    expect(() => findTracefs("linux", [join(folder, "none")])).toThrow(/mount -t tracefs/);
    mkdirSync(join(folder, "empty"));
    expect(() => findTracefs("linux", [join(folder, "empty")])).toThrow(/mount -t tracefs/);
    expect(findTracefs("linux", [join(folder, "empty"), fake.root]).root).toBe(fake.root);
  });

  test("a file that is not there, or refuses: the file and the cure", () => {
    expect(fake.read("none")).toBeUndefined();
    expect(() => new Tracefs(fake.root).write("none", "1")).toThrow(/cannot write "1" to .*none: this kernel/);
  });
});

describe("what is recorded", () => {
  const asked = { part: "out.dat.part", devices: [], probes: false, stacks: false, bufferKiB: 64 };
  const planned = (options: Partial<Parameters<typeof planRecording>[1]>, twoStep: boolean) => {
    const said: string[] = [];
    const made = planRecording(fake, { ...asked, ...options }, (message) => said.push(message), twoStep);
    return { systems: made.systems.map(({ name }) => name), file: made.file, said: said.join("\n") };
  };

  test("is every system that this kernel has, in a file that is not yet under its name", () => {
    fake.put("events/iommu/map/format", "");
    fake.put("events/swiotlb/swiotlb_bounced/format", "");
    fake.put("events/printk/console/format", "");
    expect(planned({}, false)).toEqual({
      systems: ["dma", "iommu", "swiotlb", "printk"],
      file: "out.dat.part",
      said: "",
    });
    expect(planned({ probes: true }, true).systems).toContain("dmalink");
  });

  test("without dma events the mappings are nobody's, and that is said; without any it is refused, with the cure", () => {
    fake.put("events/iommu/map/format", "");
    rmSync(join(fake.root, "events/dma"), { recursive: true });
    expect(planned({}, false).said).toMatch(/no dma:\* events \(Linux 6\.12/);
    rmSync(join(fake.root, "events/iommu"), { recursive: true });
    expect(() => planned({}, false)).toThrow(/neither dma:\* nor iommu:\* events.*CONFIG_FTRACE/);
  });

  test("says what a recording will lack: two-step without probes, other devices' iommu events", () => {
    fake.put("events/iommu/map/format", "");
    expect(planned({}, true).said).toMatch(/--probes/);
    expect(planned({ devices: ["0000:00:04.0"] }, false).said).toMatch(/name no device/);
  });
});

describe("undoing", () => {
  test("is done last first, each step once, whatever fails", () => {
    const undo = new UndoOnExit();
    const done: string[] = [];
    undo.add("one", () => done.push("one"));
    undo.add("two", () => {
      throw new Error("busy");
    });
    undo.add("three", () => done.push("three"));
    expect(undo.run()).toEqual(["two: busy"]);
    expect(undo.run()).toEqual([]);
    expect(done).toEqual(["three", "one"]);
  });
});

describe("what trace-cmd and the script are asked", () => {
  test("trace-cmd: an instance, no filter on its own tasks, the filters after their systems, the command last", async () => {
    const [program, told] = [join(folder, "trace-cmd"), join(folder, "told")];
    writeFileSync(program, `#!/bin/sh\necho "$@" > '${told}'\n`, { mode: 0o755 });
    const stop = new StopRequest();
    await recordWithTraceCmd(program, plan, ["sleep", "2"], stop, 2);
    stop.done();
    expect(readFileSync(told, "utf8").trimEnd()).toBe(
      `record -q --no-filter -o ${plan.file} -B ${instanceName()} -b 1024 -C mono -e dma -f device == "0000:00:04.0" -e iommu sleep 2`,
    );
  });

  test("with stacks, trace-cmd is asked for them, and tracefs records them with the names of the functions", async () => {
    const [program, told] = [join(folder, "trace-cmd"), join(folder, "told")];
    writeFileSync(program, `#!/bin/sh\necho "$@" > '${told}'\n`, { mode: 0o755 });
    const stop = new StopRequest();
    await recordWithTraceCmd(program, { ...plan, stacks: true }, ["true"], stop, 2);
    stop.done();
    expect(readFileSync(told, "utf8")).toContain("-C mono -T -e dma");
  });

  test("filters name the field that each system has; iommu events have none", () => {
    expect(filterOf("dma", ["a", "b"])).toBe('device == "a" || device == "b"');
    expect(filterOf("dmalink", ["a"])).toBe('dev == "a"');
    expect([filterOf("iommu", ["a"]), filterOf("dma", [])]).toEqual(["", ""]);
  });

  test("the script quotes what the shell would take apart", () => {
    const script = recordScript(
      {
        file: "it's.dat",
        seconds: 2,
        command: [],
        devices: [],
        systems: SYSTEMS,
        probes: true,
        stacks: true,
        bufferKiB: 64,
        clock: "mono",
      },
      () => "",
    );
    expect(script).toContain("out='it'\\''s.dat'");
    expect(script).toContain("sleep 2");
    expect(script).toContain("-C mono -T");
    expect(script).toContain("echo stacktrace > $I/trace_options");
    expect(script).toContain("for s in dma iommu swiotlb printk dmalink;");
    for (const { name } of PROBES) expect(script).toContain(`-:dmalink/${name}`);
  });
});
