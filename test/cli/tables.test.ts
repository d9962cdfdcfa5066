/** `dmalink tables`: what it prints, and what it says when it cannot. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { type Answered, dmalink } from "./in-process.ts";

const golden = join(import.meta.dirname, "../golden/snapshots");
const own = mkdtempSync(join(tmpdir(), "dmalink-tables-"));
afterAll(() => rmSync(own, { recursive: true, force: true }));

interface Options {
  readonly root?: string;
  readonly device?: string;
  readonly json?: boolean;
  readonly tree?: boolean;
}

const run = (file: string, options: Options = {}): Promise<Answered> =>
  dmalink(
    "tables",
    file,
    ...Object.entries(options).flatMap(([name, value]) =>
      value === true ? [`--${name}`] : [`--${name}`, String(value)],
    ),
  );

const snapshots = ["fl-inflight", "legacy-idle", "legacy-inflight", "legacy-iommufd-2m"];

interface Json {
  schema: string;
  devices: {
    bdf: string;
    pasid?: number;
    mode: string;
    levels: number;
    tablePages: number;
    mappings: { iova: string; phys: string; length: number; pageSize: number; read: boolean; write: boolean }[];
  }[];
}

describe("dmalink tables", () => {
  for (const name of snapshots) {
    const file = join(golden, `${name}.snap.gz`);

    test(`${name}: --json holds the mappings of every device`, async () => {
      const { code, out, err } = await run(file, { json: true });
      expect([code, err]).toEqual([0, ""]);
      const json = JSON.parse(out) as Json;
      expect(json.schema).toBe("dmalink.tables/1");
      const described = JSON.parse(readFileSync(join(golden, `${name}.json`), "utf8")) as {
        devices: { bdf: string; levels: number; ranges: { iova: string; phys: string; size: number }[] }[];
      };
      for (const { bdf, levels, ranges } of described.devices) {
        const device = json.devices.find((one) => one.bdf === bdf)!;
        expect(device.levels).toBe(levels);
        expect(device.mappings.map(({ iova, phys, length }) => ({ iova, phys, size: length }))).toEqual(
          ranges.map(({ iova, phys, size }) => ({ iova, phys, size })),
        );
        expect(device.mappings.every(({ length, pageSize }) => length % pageSize === 0)).toBe(true);
      }
    });

    test(`${name}: text and tree fit in 80 columns`, async () => {
      const shown = relative(process.cwd(), file); // a long path of the machine that runs this would be too wide
      for (const options of [{}, { tree: true }]) {
        const { code, out } = await run(shown, options);
        expect(code).toBe(0);
        for (const line of out.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
        expect(out).not.toContain("\x1b");
      }
    });
  }

  test("a device: mode, levels, domain, page-size mix, runs and advice", async () => {
    const { out } = await run(join(golden, "legacy-iommufd-2m.snap.gz"), { device: "00:04.0" });
    expect(out).toContain("0000:00:04.0  legacy second-stage, 4 levels, domain 3\n");
    expect(out).toContain("  tables      8 pages (32 KiB), top at 0x7bc62000\n");
    expect(out).toContain("  page sizes  4 KiB: 277 · 2 MiB: 2\n");
    expect(out).toMatch(/0x20000000 {2}0x7ad44000 +596 KiB +149 x 4 KiB +rw\n/);
    expect(out).toContain("  advice      none: ");
    expect(out).not.toContain("0000:00:05.0");
  });

  test("long lists end with how many more there are", async () => {
    const { out } = await run(join(golden, "fl-inflight.snap.gz"), { device: "0000:00:04.0" });
    expect(out).toContain("  ... and 158 more runs (--json for all)\n");
  });

  test("--tree draws tables by index and address, with leaves in runs", async () => {
    const { out } = await run(join(golden, "legacy-iommufd-2m.snap.gz"), { tree: true, device: "00:04.0" });
    const tree = out.slice(out.indexOf("PML4"));
    expect(tree.split("\n").slice(0, 8)).toEqual([
      "PML4 0x7bc62000",
      "└─ [0] PDPT 0x7bc5b000  from 0x0",
      "   ├─ [0] PD 0x7bc5f000  from 0x0",
      "   │  ├─ [0] PT 0x79895000  from 0x0",
      "   │  │  └─ [1..16] 16 x 4 KiB  0x1000 -> 0x7c902000  rw",
      "   │  ├─ [128] PT 0x7bc56000  from 0x10000000",
      "   │  │  └─ [0] 1 x 4 KiB  0x10000000 -> 0x7ad43000  rw",
      "   │  ├─ [256] PT 0x7bc60000  from 0x20000000",
    ]);
  });

  test("gzip is recognised by its first bytes, not by the name", async () => {
    const packed = readFileSync(join(golden, "legacy-idle.snap.gz"));
    writeFileSync(join(own, "packed.snap"), packed);
    writeFileSync(join(own, "plain.snap.gz"), gunzipSync(packed));
    const expected = JSON.parse((await run(join(golden, "legacy-idle.snap.gz"), { json: true })).out) as Json;
    for (const name of ["packed.snap", "plain.snap.gz"]) {
      const { code, out } = await run(join(own, name), { root: "0xde0000", json: true });
      expect(code).toBe(0);
      expect((JSON.parse(out) as Json).devices).toEqual(expected.devices);
    }
  });

  test("--root takes an address or the register's value", async () => {
    const file = join(golden, "fl-inflight.snap.gz");
    const beside = await run(file);
    for (const root of ["0xdea000", "0xdea400"]) expect(await run(file, { root })).toEqual(beside);
  });
});

describe("a snapshot made to have no end", () => {
  /** Pages by number, in words. */
  const snapshot = (name: string, pages: ReadonlyMap<number, (index: number) => bigint>): string => {
    const bytes = Buffer.alloc(16 + pages.size * 4104);
    bytes.write("DMASNAP1");
    bytes.writeUInt32LE(4096, 8);
    bytes.writeUInt32LE(pages.size, 12);
    let at = 16;
    for (const page of [...pages.keys()].sort((a, b) => a - b)) {
      bytes.writeBigUInt64LE(BigInt(page) << 12n, at);
      for (let i = 0; i < 512; i++) bytes.writeBigUInt64LE(pages.get(page)!(i), at + 8 + i * 8);
      at += 4104;
    }
    writeFileSync(join(own, name), bytes);
    return join(own, name);
  };
  const table = (page: number): bigint => (BigInt(page) << 12n) | 3n;
  /** 65,536 devices over `roots` tables from page 16 on, of three levels, each entry by `entry`. */
  const unit = (name: string, roots: number, entry: (page: number, index: number) => bigint): string => {
    const pages = new Map<number, (index: number) => bigint>([
      [1, (i) => (i % 2 === 0 ? (2n << 12n) | 1n : 0n)],
      [2, (i) => (i % 2 === 0 ? (BigInt(16 + ((i / 2) % roots)) << 12n) | 1n : (1n << 8n) | 1n)],
    ]);
    for (let page = 16; page < 16 + roots; page++) pages.set(page, (index) => entry(page, index));
    return snapshot(name, pages);
  };
  const within = async (call: () => Promise<Answered>): Promise<Answered> => {
    const before = process.cpuUsage();
    const answer = await call();
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(40);
    return answer;
  };

  test("of which all devices share one address space shows it once, and the others name whose it is", async () => {
    // Half its entries are leaves of 1 GiB, no two of them neighbours in memory.
    const file = unit("shared.snap", 1, (page, i) => (i < 256 ? table(page) : (BigInt(i * 2) << 30n) | 0x83n));
    const { code, out } = await within(() => run(file, { root: "0x1000", json: true }));
    const { devices } = JSON.parse(out) as { devices: { bdf: string; mappings?: object[]; sharedWith?: object }[] };
    expect([code, devices.length]).toEqual([0, 65_536]);
    expect(devices[0]!.mappings!.length).toBeGreaterThan(0);
    expect(devices.slice(1).every(({ mappings, sharedWith }) => !mappings && sharedWith)).toBe(true);
    expect(devices[1]!.sharedWith).toEqual({ bdf: "0000:00:00.0" });
    const text = await within(() => run(file, { root: "0x1000" }));
    expect(text.out).toContain("tables      those of 0000:00:00.0: one address space");
    const trace = join(import.meta.dirname, "../golden/traces/strict-reload-nvme.dat.gz");
    const checked = await within(() => dmalink("check", trace, "--snapshot", file, "--root", "0x1000"));
    expect([checked.code, checked.out]).toEqual([2, ""]);
    expect(checked.err).toMatch(/shared\.snap: the tables point to each other.*\n$/);
  });

  test("of which tables point to each other without end is refused in one line; one device of it can be asked for", async () => {
    const file = unit("roots.snap", 120, (_page, i) => table(16 + ((i * 7) % 120)));
    for (const options of [{ root: "0x1000" }, { root: "0x1000", json: true }]) {
      const { code, out, err } = await within(() => run(file, options));
      expect([code, out]).toEqual([2, ""]);
      expect(err).toMatch(/^dmalink: .*the tables point to each other.*--device.*\n$/);
    }
    expect((await within(() => run(file, { root: "0x1000", device: "0000:00:01.0" }))).code).toBe(0);
  });
});

describe("dmalink tables says in one line what is wrong and what to do", () => {
  const packed = readFileSync(join(golden, "legacy-idle.snap.gz"));
  const write = (name: string, content: Uint8Array | string): string => {
    writeFileSync(join(own, name), content);
    return join(own, name);
  };
  const cases: [string, () => [string, Options], RegExp][] = [
    ["no file", () => [join(own, "none.snap"), { root: "0x1000" }], /none\.snap: no such file/],
    ["no registers", () => [write("lone.snap.gz", packed), {}], /lone\.json is not there.*--root/],
    [
      "registers that are not JSON",
      () => [write("bad.json", "{") && write("bad.snap.gz", packed), {}],
      /bad\.json is not JSON.*--root/,
    ],
    [
      "no root table register",
      () => [write("empty.json", '{"registers":{}}') && write("empty.snap.gz", packed), {}],
      /empty\.json has neither registers\.rtaddr.*--root/,
    ],
    ["a bad --root", () => [write("a.snap", packed), { root: "0x123" }], /--root 0x123: .*0xdea000/],
    ["a root that is not there", () => [write("a.snap", packed), { root: "0x5000" }], /root table 0x5000 is not among/],
    ["a bad --device", () => [write("a.snap", packed), { root: "0xde0000", device: "4" }], /--device 4: .*00:04\.0/],
    [
      "a device without an entry",
      () => [write("a.snap", packed), { root: "0xde0000", device: "01:00.0" }],
      /no context entry for device 0000:01:00\.0; there are entries for 0000:00:00\.0/,
    ],
    [
      "another kind of file",
      () => [write("t.snap", "tracer: nop"), { root: "0xde0000" }],
      /t\.snap: not a table snapshot/,
    ],
    [
      "a trace.dat",
      () => [write("t.dat", Buffer.from("\x17\x08Dtracing6\0\0\0\0\0\0\0\0\0", "latin1")), { root: "0xde0000" }],
      /t\.dat: not a table snapshot.*17 08 44/,
    ],
    [
      "a cut file",
      () => [write("cut.snap", gunzipSync(packed).subarray(0, 5000)), { root: "0xde0000" }],
      /cut\.snap: damaged at offset 5000 .*the file ends at 5000/,
    ],
    [
      "a cut gzip",
      () => [write("cut.gz", packed.subarray(0, 300)), { root: "0xde0000" }],
      /cut\.gz: the gzip stream is cut or damaged/,
    ],
  ];
  for (const [what, make, expected] of cases)
    test(what, async () => {
      const { code, out, err } = await run(...make());
      expect(code).toBe(2);
      expect(out).toBe("");
      expect(err).toMatch(expected);
      expect(err.trimEnd()).not.toContain("\n");
    });
});
