/** Perfetto traces of written and recorded traces, judged by Perfetto's own trace processor. */
import { deflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type Deflate, type Recording, readRecording, writePerfetto } from "../../src/report/index.ts";
import type { Trace } from "../../src/trace/index.ts";
import { some } from "../effort.ts";
import { TraceProcessor } from "../models/trace-processor.ts";
import { golden, written } from "./written-trace.ts";

async function perfetto(
  trace: Trace,
  deflate?: Deflate,
): Promise<{ recording: Recording; processor: TraceProcessor; size: number }> {
  const recording = await readRecording(trace);
  const parts: Uint8Array[] = [];
  writePerfetto(recording, (bytes) => void parts.push(bytes.slice()), deflate);
  const file = Buffer.concat(parts);
  return { recording, processor: await TraceProcessor.load(file), size: file.length };
}

const SLICES =
  "select ts, dur, slice.name as name, process.name as device, thread_or.name as lane from slice " +
  "join process_track as thread_or on slice.track_id = thread_or.id join process using (upid)";

describe("a Perfetto trace", () => {
  test("has each mapping as a slice of its device, from map to unmap; overlapping ones on tracks of their own", async () => {
    const { processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_map_phys", address: 0x7000, size: 8192 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
        { timeNs: 30, name: "dma_map_phys", address: 0x9000, device: "0000:00:05.0" },
        { timeNs: 50, name: "dma_unmap_phys", address: 0x7000, size: 8192 },
      ]),
    );
    expect(processor.query(`${SLICES} order by ts`)).toEqual([
      { ts: 1_000_000_000n, dur: 20n, name: "one-shot 4 KiB", device: "0000:00:04.0", lane: "mappings 1" },
      { ts: 1_000_000_010n, dur: 40n, name: "one-shot 8 KiB", device: "0000:00:04.0", lane: "mappings 2" },
      { ts: 1_000_000_030n, dur: -1n, name: "one-shot 4 KiB", device: "0000:00:05.0", lane: "mappings 1" },
    ]);
    const args = processor.query(
      "select args.key as key, int_value, string_value from slice join args using (arg_set_id) where ts = 1000000010",
    );
    const of = (key: string) => args.find((arg) => arg.key === `debug.${key}`);
    expect(of("iova")?.int_value).toBe(0x7000n);
    expect(of("direction")?.string_value).toBe("from-device");
    expect(of("task")?.string_value).toBe("fio-77");
  });

  test("counts bytes mapped and live mappings at each change", async () => {
    const { processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_map_phys", address: 0x7000, size: 8192 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
      ]),
    );
    const counters = processor.query(
      "select ts - 1000000000 as at, value, t.name as name from counter join process_counter_track as t on counter.track_id = t.id order by t.name, ts",
    );
    expect(counters.map(({ at, value, name }) => [name, at, value])).toEqual([
      ["IOVA bytes mapped", 0n, 4096],
      ["IOVA bytes mapped", 10n, 12288],
      ["IOVA bytes mapped", 20n, 8192],
      ["live mappings", 0n, 1],
      ["live mappings", 10n, 2],
      ["live mappings", 20n, 1],
    ]);
  });

  test("has each finding as an instant with its message", async () => {
    const { recording, processor } = await perfetto(
      await written([
        { timeNs: 0, name: "dma_map_phys", address: 0x5000 },
        { timeNs: 10, name: "dma_unmap_phys", address: 0x5000 },
        { timeNs: 20, name: "dma_unmap_phys", address: 0x5000 },
      ]),
    );
    expect(recording.result.findings.length).toBeGreaterThan(0);
    const instants = processor.query(
      "select slice.name as rule, ts, string_value as message from slice join args using (arg_set_id) where dur = 0 and key = 'debug.message' order by ts",
    );
    expect(instants.map(({ rule, message }) => [rule, message])).toEqual(
      [...recording.result.findings].sort((a, b) => a.timeNs - b.timeNs).map(({ rule, message }) => [rule, message]),
    );
  });

  test.each([["pt-rr4k-qd32.dat.gz", 60]])(
    "of %s takes %i bytes a mapping at most where it may be packed, and says the same as one that is not",
    async (name, most) => {
      const [packed, plain] = [await perfetto(await golden(name), deflateSync), await perfetto(await golden(name))];
      expect(packed.size / packed.recording.mappings.count).toBeLessThan(most);
      expect(plain.size / plain.recording.mappings.count).toBeLessThan(3 * most);
      for (const what of [
        "select ts, dur, name, category, track_id from slice order by ts, id",
        "select ts, value, track_id from counter order by ts, id",
        "select key, int_value, string_value from slice join args using (arg_set_id) order by slice.id, key",
      ])
        expect(packed.processor.query(what)).toEqual(plain.processor.query(what));
    },
  );

  test.each(
    some(
      [
        "strict-mix7030.dat.gz",
        "strict-net.dat.gz",
        "iommufd-vfio.dat.gz",
        "strict-inflight.dat.gz",
        "pt-rr4k-qd32.dat.gz",
      ],
      2,
    ),
  )("of %s: every mapping is a slice, none is bent, no byte is unknown to the trace processor", async (name) => {
    const { recording, processor } = await perfetto(await golden(name), deflateSync);
    const [{ n, ended }] = processor.query(
      "select count(*) as n, sum(dur >= 0) as ended from slice join process_track on slice.track_id = process_track.id where process_track.name glob 'mappings*'",
    ) as [{ n: bigint; ended: bigint }];
    const { mappings } = recording;
    expect(Number(n)).toBe(mappings.count);
    expect(Number(ended)).toBe(mappings.endNs.subarray(0, mappings.count).filter((end) => end >= 0).length);
    expect(processor.query("select count(*) as deep from slice where depth > 0")).toEqual([{ deep: 0n }]);
    expect(
      processor.query("select name, value from stats where value > 0 and severity in ('error', 'data_loss')"),
    ).toEqual([]);
    const [{ last }] = processor.query(
      "select value as last from counter join process_counter_track as t on counter.track_id = t.id where t.name = 'IOVA bytes mapped' order by ts desc limit 1",
    ) as [{ last: number }];
    const devices = new Set(mappings.device.subarray(0, mappings.count));
    if (devices.size === 1)
      expect(last).toBe(
        mappings.length
          .subarray(0, mappings.count)
          .reduce((sum, length, i) => sum + (mappings.endNs[i]! < 0 ? length : 0), 0),
      );
  });
});
