/** The kernel's interface as we have it written down, against the kernel's headers: the C compiler says who is right. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  CONSTANTS,
  MIGRATION_CONSTANTS,
  MIGRATION_STRUCTURES,
  REQUESTS,
  STRUCTURES,
} from "../../src/layouts/uapi/index.ts";

/** Headers newer than the system's may be named: those of Debian's linux-libc-dev, unpacked. */
const include = process.env.DMALINK_UAPI_INCLUDE ?? "/usr/include";
const compiler = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);
const HEADERS = ["linux/vfio.h", "linux/iommufd.h"] as const;
/** In the headers' words VFIO_IOMMU_... alone is ambiguous: these are not of vfio.h. */
const headerOf = (name: string): string => (/^IOMMU_|^iommu_/.test(name) ? "linux/iommufd.h" : "linux/vfio.h");

/** What older headers may lack: device nodes, which came with iommufd, device memory as a file, and parts of migration. */
const isNewer = (name: string): boolean =>
  /iommufd|dma_buf|region_dma_range|map_file|mig_|migration|precopy|pre_copy|logging/i.test(name);

describe.each(HEADERS)("what we say of %s", (header) => {
  const missing =
    compiler === undefined
      ? "no C compiler"
      : existsSync(join(include, header))
        ? undefined
        : `no ${include}/${header}`;

  test.skipIf(missing)(`equals what the compiler says${missing ? ` (skipped: ${missing})` : ""}`, () => {
    const source: string[] = ["#include <stdio.h>", "#include <stddef.h>", `#include <${header}>`, "int main(void) {"];
    const say = (key: string, value: string): void => {
      source.push(`  printf("%s %llu\\n", "${key}", (unsigned long long)(${value}));`);
    };
    const expected = new Map<string, number>();
    const text = readFileSync(join(include, header), "utf8");
    const isAsked = (name: string): boolean => headerOf(name) === header && (!isNewer(name) || text.includes(name));
    for (const [name, number] of Object.entries({ ...REQUESTS, ...CONSTANTS, ...MIGRATION_CONSTANTS })) {
      if (!isAsked(name)) continue;
      say(name, name);
      expected.set(name, number);
    }
    for (const { name, bytes, fields } of [...STRUCTURES, ...MIGRATION_STRUCTURES]) {
      if (!isAsked(name)) continue;
      say(`${name} fits`, `sizeof(struct ${name}) >= ${bytes}`);
      expected.set(`${name} fits`, 1);
      for (const [field, { offset, bytes: size }] of Object.entries(fields)) {
        say(`${name}.${field}`, `offsetof(struct ${name}, ${field})`);
        say(`${name}.${field} bytes`, `sizeof(((struct ${name} *)0)->${field})`);
        expected.set(`${name}.${field}`, offset);
        expected.set(`${name}.${field} bytes`, size);
      }
    }
    source.push("  return 0;", "}");
    const folder = mkdtempSync(join(tmpdir(), "dmalink-uapi-"));
    try {
      writeFileSync(join(folder, "say.c"), source.join("\n"));
      const flags = include === "/usr/include" ? [] : ["-I", include];
      const built = spawnSync(compiler!, [...flags, "-o", join(folder, "say"), join(folder, "say.c")], {
        encoding: "utf8",
      });
      expect(built.stderr).toBe("");
      const said = spawnSync(join(folder, "say"), { encoding: "utf8" }).stdout.trim().split("\n");
      const actual = new Map(
        said.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]),
      );
      expect(actual).toEqual(expected);
      expect(expected.size).toBeGreaterThan(10);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
