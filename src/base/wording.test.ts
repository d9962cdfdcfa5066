import { describe, expect, test } from "vitest";
import { bytes, count, duration, exactBytes, plural, share } from "./wording.ts";

describe("numbers in sentences", () => {
  test("counts have commas, and one thing has no s", () => {
    expect([count(0), count(1_234_567)]).toEqual(["0", "1,234,567"]);
    expect([plural(1, "page"), plural(0, "page"), plural(2_000, "page")]).toEqual(["1 page", "0 pages", "2,000 pages"]);
  });

  test("bytes are rounded to the unit that leaves at least one, up to PiB", () => {
    expect([0, 640, 1023, 1024, 1522, 15_360, 1_572_864, 2 ** 50, 2 ** 61].map(bytes)).toEqual([
      "0 B",
      "640 B",
      "1023 B",
      "1 KiB",
      "1.49 KiB",
      "15 KiB",
      "1.50 MiB",
      "1 PiB",
      "2048 PiB",
    ]);
  });

  test("exact bytes stay exact below 1 MiB", () => {
    expect([0, 1, 1522, 4096, 1_048_575, 1_048_576, 1_572_865, 2 ** 51].map(exactBytes)).toEqual([
      "0 bytes",
      "1 byte",
      "1,522 bytes",
      "4 KiB",
      "1,048,575 bytes",
      "1 MiB",
      "1.5 MiB",
      "2048 TiB",
    ]);
  });

  test("times have three digits and their unit", () => {
    expect([0, 849.6, 12_345, 4_560_000, 1_200_000_000].map(duration)).toEqual([
      "0 ns",
      "850 ns",
      "12.3 µs",
      "4.56 ms",
      "1.20 s",
    ]);
  });

  test("a share too small to say is called small, not none", () => {
    expect([0.0001, 0.0123, 0.5, 1].map(share)).toEqual(["less than 0.1 %", "1.2 %", "50 %", "100 %"]);
  });
});
