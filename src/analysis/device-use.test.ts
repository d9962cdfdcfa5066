/** What `stats` says of the memory that devices map: a peer's is told apart from RAM. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { bytesInput, openTrace } from "../trace/index.ts";
import { readStats } from "./stats.ts";

const DEVICE = "0000:00:07.0";

async function deviceMemoryIn(text: string | Uint8Array) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(`cpus=1\n${text}`) : text;
  return (await readStats(await openTrace(bytesInput("trace", bytes)))).devices[0]!.deviceMemory;
}

test.each([
  ["the attribute of a map", "dma_map_phys", "attrs=SKIP_CPU_SYNC|MMIO", 1],
  ["the attribute as a number", "dma_map_phys", "attrs=0x400", 1],
  ["the function that older kernels have for it", "dma_map_resource", "attrs=", 1],
  ["no attribute: it is RAM", "dma_map_phys", "attrs=", undefined],
  ["another attribute", "dma_map_phys", "attrs=SKIP_CPU_SYNC", undefined],
])("%s", async (_, name, attributes, mappings) => {
  const line = `  a-1 [000] 1.000001: ${name}: ${DEVICE} dir=TO_DEVICE dma_addr=ff003000 size=4096 phys_addr=f8003000 ${attributes}\n`;
  expect(await deviceMemoryIn(line)).toEqual(mappings && { mappings, bytes: 4096 });
});

test("two-step ranges into a peer's memory are counted, by the attributes of whichever call has them", async () => {
  const recording = join(import.meta.dirname, "../../test/golden/traces/strict-p2p-hostbridge.dat.gz");
  expect(await deviceMemoryIn(gunzipSync(readFileSync(recording)))).toMatchObject({ mappings: 300 });
});
